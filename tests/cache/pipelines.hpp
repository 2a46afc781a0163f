// Pipelines to grow under: all that a cache does differently is in one of them.
#pragma once

#include <string>
#include <vector>

#include "core/pipeline/pipeline.hpp"

namespace kvlab::test {

struct Case {
  std::string name;
  Pipeline pipeline;
  bool is_cut_alike = true;  // keys and values have blocks that divide 128 tokens
};

// Each recodes() or not, selects or not.
std::vector<Case> pipelines();

// Blocks of older tokens are encoded again.
bool recodes(const Pipeline& pipeline);

// Keys per channel in blocks of 32, values per token in blocks of 128; both in groups of 32.
Pipeline kivi(std::uint64_t sinks, std::uint64_t tail, const char* bits = "4");
// Neither role in blocks that kivi() has.
Pipeline one_role_each();
// The codecs of a pipeline.
Rung rung(std::uint64_t above_tokens, const Pipeline& codecs, bool recode = false);
// Of tests/plugins: `keydiff`, a selector whose scores depend on all tokens present; `rotated`, a codec that decodes
// four tokens at a time and cannot gather.
MethodSpec of_tests(const std::string& id);

}  // namespace kvlab::test
