#include "tests/support/support.hpp"

#include <stdlib.h>

#include <algorithm>
#include <cmath>
#include <cstring>
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

KvTensor Data::stored(std::uint32_t role) const {
  const auto& rows = role == KVLAB_ROLE_KEYS ? stored_keys : stored_values;
  return KvTensor::contiguous(shape, role, shape.batch, tokens, rows.data());
}

QueryTensor Data::observed() const {
  return QueryTensor::contiguous(shape, shape.batch, observed_positions.size(), observed_rows.data(),
                                 observed_positions);
}

QueryTensor Data::judged() const {
  return QueryTensor::contiguous(shape, shape.batch, judged_positions.size(), judged_rows.data(), judged_positions);
}

Turned::Turned(const KvTensor& from, std::uint64_t gap) : tensor_(from) {
  const std::uint64_t row = from.channels + gap;
  tensor_.sequence_stride = static_cast<std::int64_t>(row);
  tensor_.head_stride = tensor_.sequence_stride * static_cast<std::int64_t>(from.sequences);
  tensor_.token_stride = tensor_.head_stride * from.kv_heads;
  stored_.assign(from.tokens * from.kv_heads * from.sequences * row * size_of(from.dtype), std::byte{0xFF});  // NaN
  tensor_.base = stored_.data();
  for (std::uint64_t sequence = 0; sequence < from.sequences; ++sequence) {
    for (std::uint32_t head = 0; head < from.kv_heads; ++head) {
      for (std::uint64_t token = 0; token < from.tokens; ++token) {
        const std::byte* to = tensor_.head(sequence, head).from(token).base;
        std::memcpy(stored_.data() + (to - stored_.data()), from.head(sequence, head).from(token).base,
                    from.channels * size_of(from.dtype));
      }
    }
  }
}

std::vector<std::byte> all_bytes(const LayerCache& cache, std::uint32_t sequence) {
  std::vector<std::byte> bytes;
  for (std::uint32_t head = 0; head < cache.shape().kv_heads; ++head) {
    for (const auto role : {KVLAB_ROLE_KEYS, KVLAB_ROLE_VALUES}) {
      for (const auto& segment : cache.head(sequence, head).of(role).segments) {
        bytes.resize(bytes.size() + segment.size);
        cache.backend().read(segment.data, bytes.data() + bytes.size() - segment.size, segment.size);
      }
    }
  }
  return bytes;
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
