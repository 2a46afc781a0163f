// A workload generator: draws one KV head of one sequence at a time. A new one is a file in this folder, with its
// entry in generators.cpp.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/registry/parameter.hpp"
#include "experiments/workloads/synthetic/random.hpp"

namespace kvlab {

// What is to be drawn. Rows are contiguous, f32.
struct HeadDraw {
  std::uint64_t seed;
  std::uint64_t layer;
  std::uint64_t sequence;
  std::uint64_t kv_head;
  std::uint64_t tokens;   // drawn
  std::uint64_t prefill;  // of them, what queries attend to
  std::uint64_t head_dim;
  double attention_scale;
  std::span<float> keys;      // [tokens, head_dim]
  std::span<float> values;    // [tokens, head_dim]
  std::span<float> observed;  // [query, head_dim] of all query heads of the group
  std::span<float> judged;    // likewise
};

struct Generator {
  std::string name;
  std::string version;  // raised when it draws other numbers
  std::string summary;
  std::string known_answer;
  std::vector<Parameter> parameters;
  void (*draw)(const std::vector<kvlab_value>& parameters, HeadDraw& head);
};

// Declares an integer or real parameter of a generator.
Parameter integer_parameter(const char* name, std::int64_t default_value, std::int64_t least, std::int64_t most,
                            const char* unit, const char* meaning);
Parameter real_parameter(const char* name, double default_value, double least, double most, const char* unit,
                         const char* meaning);

Generator gaussian();
Generator spectrum();
Generator outlier_channels();
Generator needle();

const std::vector<Generator>& generators();

// Everything N(0,1), from the head's own stream, which is returned for what more there is to draw.
Random draw_gaussian(HeadDraw& head);

// A random unit vector.
void random_direction(Random& random, std::span<float> out);

}  // namespace kvlab
