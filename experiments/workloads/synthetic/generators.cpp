#include <cmath>

#include "experiments/workloads/synthetic/generator.hpp"

namespace kvlab {

Parameter integer_parameter(const char* name, std::int64_t default_value, std::int64_t least, std::int64_t most,
                            const char* unit, const char* meaning) {
  Parameter parameter;
  parameter.name = name;
  parameter.type = ParameterType::integer;
  parameter.default_value.i = default_value;
  parameter.minimum.i = least;
  parameter.maximum.i = most;
  parameter.unit = unit;
  parameter.meaning = meaning;
  return parameter;
}

Parameter real_parameter(const char* name, double default_value, double least, double most, const char* unit,
                         const char* meaning) {
  Parameter parameter;
  parameter.name = name;
  parameter.type = ParameterType::real;
  parameter.default_value.f = default_value;
  parameter.minimum.f = least;
  parameter.maximum.f = most;
  parameter.unit = unit;
  parameter.meaning = meaning;
  return parameter;
}

const std::vector<Generator>& generators() {
  static const std::vector<Generator> all{gaussian(), spectrum(), outlier_channels(), needle()};
  return all;
}

Random draw_gaussian(HeadDraw& head) {
  Random random(head.seed, {head.layer, head.sequence, head.kv_head});
  for (const auto& tensor : {head.keys, head.values, head.observed, head.judged}) random.normal(tensor);
  return random;
}

void random_direction(Random& random, std::span<float> out) {
  random.normal(out);
  double sum = 0;
  for (const float x : out) sum += static_cast<double>(x) * x;
  for (float& x : out) x = static_cast<float>(x / std::sqrt(sum));
}

}  // namespace kvlab
