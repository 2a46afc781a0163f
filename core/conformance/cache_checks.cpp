// A method where it will be used: in a cache that is filled, grows, evicts, is attended to and read back.
#include <algorithm>
#include <cmath>

#include "core/backend/cpu/cpu_backend.hpp"
#include "core/cache/manager.hpp"
#include "core/conformance/checks.hpp"

namespace kvlab::conformance {
namespace {

constexpr std::uint32_t head_dim = 64;
constexpr std::uint64_t prefilled = 200;
constexpr std::uint64_t appended = 300;
constexpr std::uint64_t budget = 150;

Pipeline pipeline_of(const MethodSpec& spec) {
  Pipeline pipeline;
  pipeline.sinks = 3;
  pipeline.tail = 20;
  if (spec.method->kind == MethodKind::codec) {
    pipeline.keys = spec;
    pipeline.values = spec;
  } else {
    pipeline.select = {{spec, {budget, 1}}};
  }
  return pipeline;
}

struct Rows {
  explicit Rows(Dtype dtype)
      : shape(layer_shape(dtype, head_dim)),
        keys(draw(dtype, prefilled + appended, head_dim, Content::normal, 1), head_dim),
        values(draw(dtype, prefilled + appended, head_dim, Content::normal, 2), head_dim),
        queries(draw(Dtype::f32, shape.query_heads, head_dim, Content::normal, 3).rows) {}

  [[nodiscard]] KvTensor tensor(std::uint32_t role) const {
    const StoredTokens& stored = role == KVLAB_ROLE_KEYS ? keys : values;
    return KvTensor::contiguous(shape, role, 1, prefilled + appended, stored.memory.as<std::byte>());
  }

  LayerShape shape;
  StoredTokens keys;
  StoredTokens values;
  std::vector<float> queries;
};

void expect_finite(const std::vector<float>& outputs) {
  if (std::all_of(outputs.begin(), outputs.end(), [](float x) { return std::isfinite(x); })) return;
  throw Failure("attention over the cache gives a number that is not finite");
}

void live(const MethodSpec& spec, const Rows& layer, Backend& backend) {
  CacheManager cache(pipeline_of(spec), std::span(&layer.shape, 1), backend, {.decodes = true});
  const std::vector<std::uint32_t> observed{prefilled - 1};
  const auto query = [&](std::span<const std::uint32_t> position) {
    return QueryTensor::contiguous(layer.shape, 1, 1, layer.queries.data(), position);
  };
  const KvTensor keys = layer.tensor(KVLAB_ROLE_KEYS);
  const KvTensor values = layer.tensor(KVLAB_ROLE_VALUES);
  cache.prefill(0, 0, {keys.slice(0, prefilled), values.slice(0, prefilled), query(observed)});
  const std::uint32_t sequence = 0;
  const std::span one(&sequence, 1);
  std::vector<float> outputs(layer.shape.query_heads * head_dim);
  for (std::uint64_t token = prefilled; token < prefilled + appended; ++token) {
    cache.append(0, one, keys.slice(token, 1), values.slice(token, 1));
    if (token % 50 != 0) continue;
    const auto position = static_cast<std::uint32_t>(token);
    cache.attend(0, one, query(std::span(&position, 1)), outputs.data());
    expect_finite(outputs);
  }
  std::vector<std::byte> rows(2 * (prefilled + appended) * head_dim * size_of(layer.shape.dtype));
  cache.decompress(0, rows.data(), rows.data() + rows.size() / 2);
}

}  // namespace

void works_in_a_cache(const Method& method, const Place& place) {
  CpuBackend backend(2);
  for (const MethodSpec& spec : settings(method)) {
    for (const Dtype dtype : {Dtype::bf16, Dtype::f32}) {
      place.set((spec.values.empty() ? "" : text_of(spec) + ", ") + std::string(name_of(dtype)));
      unless_refused([&] { live(spec, Rows(dtype), backend); });
    }
  }
  place.set("");
}

}  // namespace kvlab::conformance
