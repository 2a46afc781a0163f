#include "tests/support/support.hpp"

#include <stdlib.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string_view>

#include "core/backend/cpu/cpu_backend.hpp"
#include "tests/support/guarded.hpp"

namespace kvlab::test {
namespace {

std::vector<float> normal(std::size_t count, std::uint64_t seed) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<float> distribution;
  std::vector<float> values(count);
  for (auto& value : values) value = distribution(engine);
  return values;
}

// Rounds to the dtype; `rows` become what was stored.
void store(Dtype dtype, std::vector<float>& rows, std::vector<std::byte>& stored) {
  stored.resize(rows.size() * size_of(dtype));
  from_f32(dtype, rows.data(), stored.data(), rows.size());
  to_f32(dtype, stored.data(), rows.data(), rows.size());
}

KvTensor tensor(const LayerShape& shape, std::uint64_t tokens, const std::vector<std::byte>& stored,
                std::uint32_t channels) {
  const auto head = static_cast<std::int64_t>(tokens * channels);
  return {stored.data(), head * shape.kv_heads, head, channels};
}

}  // namespace

const Registry& registry() {
  static const Registry all(plugin_search_path({std::filesystem::path(KVLAB_BINARY_DIR) / "methods"}));
  return all;
}

Backend& backend(std::size_t threads) {
  static std::map<std::size_t, std::unique_ptr<Backend>> all;
  auto& own = all[threads];
  if (own != nullptr) return *own;
  const char* name = std::getenv("KVLAB_TEST_BACKEND");
  if (name != nullptr && std::string_view(name) == "guarded") {
    own = std::make_unique<GuardedBackend>(threads);
  } else {
    own = std::make_unique<CpuBackend>(threads);
  }
  return *own;
}

std::shared_ptr<CacheMemory> memory(std::size_t threads) { return std::make_shared<CacheMemory>(backend(threads)); }

MethodSpec spec(const std::string& id, const std::vector<std::pair<std::string, std::string>>& parameters) {
  const Method* method = registry().find(id);
  if (method == nullptr) throw std::runtime_error("no method " + id);
  std::vector<Setting> settings;
  for (const auto& [name, text] : parameters) settings.emplace_back(name, text);
  return method_spec(registry(), method->kind, id, settings);
}

LayerShape shape(std::uint64_t batch, std::uint32_t kv_heads, std::uint32_t query_heads, std::uint32_t head_dim,
                 Dtype dtype) {
  LayerShape made;
  made.batch = batch;
  made.kv_heads = kv_heads;
  made.query_heads = query_heads;
  made.head_dim_keys = head_dim;
  made.head_dim_values = head_dim;
  made.dtype = dtype;
  made.attention_scale = 1 / std::sqrt(static_cast<double>(head_dim));
  made.seed = 7;
  return made;
}

Data::Data(const LayerShape& shape_, std::uint64_t tokens_, std::uint64_t queries, std::uint64_t seed)
    : shape(shape_), tokens(tokens_) {
  keys = normal(shape.heads() * tokens * shape.head_dim_keys, seed);
  values = normal(shape.heads() * tokens * shape.head_dim_values, seed + 1);
  store(shape.dtype, keys, stored_keys);
  store(shape.dtype, values, stored_values);
  const std::uint64_t observed = std::min(queries, tokens);
  const std::uint64_t heads = shape.batch * shape.query_heads;
  observed_rows = normal(heads * observed * shape.head_dim_keys, seed + 2);
  judged_rows = normal(heads * queries * shape.head_dim_keys, seed + 3);
  observed_positions.resize(observed);
  judged_positions.resize(queries);
  std::iota(observed_positions.begin(), observed_positions.end(), static_cast<std::uint32_t>(tokens - observed));
  std::iota(judged_positions.begin(), judged_positions.end(), static_cast<std::uint32_t>(tokens));
}

void Data::set_keys(const std::vector<float>& rows) {
  keys = rows;
  store(shape.dtype, keys, stored_keys);
}

void Data::set_values(const std::vector<float>& rows) {
  values = rows;
  store(shape.dtype, values, stored_values);
}

Prefill Data::prefill() const {
  return {tokens,
          tensor(shape, tokens, stored_keys, shape.head_dim_keys),
          tensor(shape, tokens, stored_values, shape.head_dim_values),
          {observed_rows.data(), observed_positions}};
}

std::vector<double> attention(const Data& data, const std::vector<float>& keys, const std::vector<float>& values,
                              const std::vector<std::vector<std::uint32_t>>& kept) {
  const LayerShape& s = data.shape;
  const std::uint64_t queries = data.judged_positions.size();
  std::vector<double> out;
  for (std::uint64_t row = 0; row < s.batch * s.query_heads * queries; ++row) {
    const std::uint64_t query_head = row / queries;
    const std::uint64_t head = query_head / s.query_heads * s.kv_heads + query_head % s.query_heads / s.group();
    const std::uint64_t position = data.judged_positions[row % queries];
    std::vector<double> sum(s.head_dim_values, 0.0);
    double total = 0;
    for (const std::uint32_t token : kept[head]) {
      if (s.window > 0 && token + s.window <= position) continue;
      double logit = 0;
      for (std::uint64_t c = 0; c < s.head_dim_keys; ++c) {
        logit += static_cast<double>(data.judged_rows[row * s.head_dim_keys + c]) *
                 keys[(head * data.tokens + token) * s.head_dim_keys + c];
      }
      const double weight = std::exp(logit * s.attention_scale);  // logits of tests are small
      total += weight;
      for (std::uint64_t c = 0; c < s.head_dim_values; ++c) {
        sum[c] += weight * values[(head * data.tokens + token) * s.head_dim_values + c];
      }
    }
    for (const double value : sum) out.push_back(total > 0 ? value / total : 0);
  }
  return out;
}

ForcedIsa::ForcedIsa(Isa isa) {
  if (const char* name = std::getenv("KVLAB_ISA"); name != nullptr) before_ = name;
  setenv("KVLAB_ISA", name_of(isa), 1);
}

ForcedIsa::~ForcedIsa() {
  if (before_) {
    setenv("KVLAB_ISA", before_->c_str(), 1);
  } else {
    unsetenv("KVLAB_ISA");
  }
}

Folder::Folder() {
  std::string name = (std::filesystem::temp_directory_path() / "kvlab-test-XXXXXX").string();
  if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary folder");
  path_ = name;
}

Folder::~Folder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace kvlab::test
