// Recorded KV caches, format version 1 (experiments/workloads/trace/README.md). A trace is a stranger's file: any part
// may be missing, of the wrong type or shape, truncated, hostile, NaN. What is wrong with it is an InputError.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "core/pipeline/layer_shape.hpp"
#include "results/hdf5.hpp"

namespace kvlab {

struct TraceLayer {
  std::string group;  // "layer_002"; "" in a header that came from the check
  std::uint32_t layer = 0;
  std::uint64_t window = 0;  // 0: attends to all
};

struct TraceHeader {
  std::string model;
  std::string model_license;
  std::string text;
  std::uint32_t model_layers = 0;
  std::uint32_t query_heads = 0;
  std::uint32_t kv_heads = 0;
  std::uint32_t head_dim = 0;
  std::uint64_t sequences = 0;
  std::uint64_t tokens = 0;  // a sequence
  std::uint64_t prefill_tokens = 0;
  Dtype dtype = Dtype::f32;
  double attention_scale = 0;
  RopeStyle rope_style = RopeStyle::none;
  double rope_theta = 0;
  std::vector<double> inv_freq;                // [rope_dim / 2]
  std::vector<std::uint32_t> query_positions;  // ascending
  std::vector<TraceLayer> layers;              // by number
};

// As JSON, in which texts are printable and groups are left out; and back, where nlohmann's exceptions tell of damage.
nlohmann::json to_json(const TraceHeader& header);
TraceHeader header_of(const nlohmann::json& json);

// Of an open trace, in a process that may be lost: the child that checks, or a worker.
class Trace {
 public:
  explicit Trace(const h5::Object& file);  // reads and checks the header and all shapes; `file` outlives this

  [[nodiscard]] const TraceHeader& header() const { return header_; }

  // K or V (`name` keys, values) of a sequence, the first `tokens`: [kv_head, token, channel] in the trace's dtype.
  void read_tensor(const TraceLayer& layer, const char* name, std::uint64_t sequence, std::uint64_t tokens,
                   void* out) const;
  // All recorded queries of a sequence, [query_head, query, channel].
  void read_queries(const TraceLayer& layer, std::uint64_t sequence, std::vector<float>& out) const;

  // Reads everything and refuses NaN and infinity.
  void check_values() const;

 private:
  const h5::Object& file_;
  TraceHeader header_;
};

// What the check of a trace found.
struct CheckedTrace {
  std::string stamp;  // of the file: size, times of change, inode
  std::string hash;   // of its content
  TraceHeader header;
};

// Checks all of a trace in a child (results/structure.hpp), or remembers that this was done: by path and stamp, in
// ~/.cache/kvlab. Throws InputError that begins with the path.
CheckedTrace check_trace(const std::filesystem::path& path);

// The stamp of the file as it is now. Throws InputError when there is none.
std::string stamp_of_trace(const std::filesystem::path& path);

}  // namespace kvlab
