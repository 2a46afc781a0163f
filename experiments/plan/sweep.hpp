// Sweeps and zips of one pipeline or workload: one tree in, all its concrete variants out.
//
//   bits: {sweep: [8, 4, 2]}                        each value in turn
//   tokens: {sweep: {from: 32, to: 4096, times: 2}} 32, 64, ..., 4096; `step: N` adds instead
//   zip: {codec.bits: [8, 4], codec.group: [64, 32]} first with first; zip x sweep is a product
#pragma once

#include <string>
#include <vector>

#include "experiments/config/node.hpp"

namespace kvlab {

struct Variant {
  Node tree;                       // no sweep and no zip left
  std::vector<std::string> swept;  // the paths that vary, in order of appearance
};

// `most`: a grid beyond it is refused, unless 0.
std::vector<Variant> expand(const Node& tree, const std::string& what, std::size_t most);

}  // namespace kvlab
