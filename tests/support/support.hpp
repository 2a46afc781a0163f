// What several tests need: the methods of this build, layers with data, a folder of one's own.
#pragma once

#include <kvlab/isa.hpp>

#include <filesystem>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/cache/layer_cache.hpp"
#include "core/registry/registry.hpp"

namespace kvlab::test {

// methods/ of this build, with KVLAB_PLUGIN_PATH before it.
const Registry& registry();

// Where caches of tests live, with that many threads; it lasts. The CPU's, or where the environment's
// KVLAB_TEST_BACKEND is "guarded", guarded.hpp's.
Backend& backend(std::size_t threads = 2);
// A layer's own memory there.
std::shared_ptr<CacheMemory> memory(std::size_t threads = 2);

// A step of a pipeline: defaults, with these parameters set, each as YAML spells it.
MethodSpec spec(const std::string& id, const std::vector<std::pair<std::string, std::string>>& parameters = {});

// A layer's data in memory: N(0,1) unless changed, rounded to the layer's dtype. `queries` observed ones at the end of
// the prefill and as many judged after it.
struct Data {
  Data(const LayerShape& shape, std::uint64_t tokens, std::uint64_t queries = 4, std::uint64_t seed = 1);

  // Overwrites with rows [batch, kv_head, token, channel], rounded.
  void set_keys(const std::vector<float>& rows);
  void set_values(const std::vector<float>& rows);

  [[nodiscard]] KvTensor stored(std::uint32_t role) const;  // KVLAB_ROLE_KEYS, _VALUES
  [[nodiscard]] QueryTensor observed() const;
  [[nodiscard]] QueryTensor judged() const;
  [[nodiscard]] Prefill prefill() const { return {stored(KVLAB_ROLE_KEYS), stored(KVLAB_ROLE_VALUES), observed()}; }

  LayerShape shape;
  std::uint64_t tokens;
  std::vector<float> keys;  // as stored, in f32
  std::vector<float> values;
  std::vector<std::byte> stored_keys;
  std::vector<std::byte> stored_values;
  std::vector<float> observed_rows;
  std::vector<float> judged_rows;
  std::vector<std::uint32_t> observed_positions;
  std::vector<std::uint32_t> judged_positions;
};

// The same numbers, [token, kv_head, sequence, channel], with so many elements between rows.
class Turned {
 public:
  Turned(const KvTensor& from, std::uint64_t gap);
  [[nodiscard]] const KvTensor& tensor() const { return tensor_; }

 private:
  std::vector<std::byte> stored_;
  KvTensor tensor_;
};

// All segments of a sequence's heads, as they stand in memory.
std::vector<std::byte> all_bytes(const LayerCache& cache, std::uint32_t sequence);

LayerShape shape(std::uint64_t batch, std::uint32_t kv_heads, std::uint32_t query_heads, std::uint32_t head_dim,
                 Dtype dtype = Dtype::f32);

// What attention on the bytes may differ by from attention over the decoded rows: codecs may round queries and weights
// to 16 bits. A tenth of the 2e-3 that the project promises.
inline constexpr double attention_tolerance = 2e-4;

// |a - b| / |b|
template <class A, class B>
double relative(const std::vector<A>& a, const std::vector<B>& b);

// Sets KVLAB_ISA, and puts it back: instances made meanwhile use that instruction set.
class ForcedIsa {
 public:
  explicit ForcedIsa(Isa isa);
  ~ForcedIsa();
  ForcedIsa(const ForcedIsa&) = delete;
  ForcedIsa& operator=(const ForcedIsa&) = delete;

 private:
  std::optional<std::string> before_;
};

// A folder that is removed at the end.
class Folder {
 public:
  Folder();
  ~Folder();
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

template <class A, class B>
double relative(const std::vector<A>& a, const std::vector<B>& b) {
  double error = 0;
  double norm = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double difference = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    error += difference * difference;
    norm += static_cast<double>(b[i]) * static_cast<double>(b[i]);
  }
  return error == 0 ? 0 : __builtin_sqrt(error / norm);
}

}  // namespace kvlab::test
