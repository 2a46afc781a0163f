#include "results/schema.hpp"

#include <array>

namespace kvlab {
namespace {

ColumnSpec text(const char* name, const char* description) { return {name, ColumnType::text, "", description}; }
ColumnSpec count(const char* name, const char* description) { return {name, ColumnType::integer, "1", description}; }
ColumnSpec real(const char* name, const char* unit, const char* description) {
  return {name, ColumnType::real, unit, description};
}

// A timing: the median, its quartiles and how many samples it is of.
void add_timing(std::vector<ColumnSpec>& columns, const std::string& name, const std::string& what) {
  columns.push_back({name, ColumnType::real, "s", "median time " + what + ", summed over layers"});
  columns.push_back({name + "_q25", ColumnType::real, "s", "first quartile of " + name});
  columns.push_back({name + "_q75", ColumnType::real, "s", "third quartile of " + name});
  columns.push_back({name + "_samples", ColumnType::real, "1", "samples behind " + name});
}

void add_extremes(std::vector<ColumnSpec>& columns, const std::string& name) {
  columns.push_back({name + "_mean", ColumnType::real, "s",
                     "mean of " + name + ": blocks that the call encodes included, not those of a background thread"});
  columns.push_back({name + "_p99", ColumnType::real, "s", "99th percentile of " + name});
  columns.push_back({name + "_max", ColumnType::real, "s", "largest of " + name});
}

std::vector<ColumnSpec> make_cell_columns() {
  std::vector<ColumnSpec> columns{
      text("id", "hash of all that decides the numbers; cells of equal id were measured once"),
      text("pipeline", "label in the experiment"),
      text("workload", "label in the experiment"),
      text("backend", "cpu or cuda"),
      count("repeat", "0-based"),
      count("seed", "the experiment's seed + repeat"),
      text("status", "ok, skipped, unsupported, failed, timeout, out_of_memory, crashed"),
      text("reason", "why the status is not ok"),
      text("log", "what the worker printed and its methods logged: the end of it, a line each"),
      real("limit_seconds", "s", "the limit that ended a cell of status timeout"),
      real("limit_memory_bytes", "B", "the limit under which a cell of status out_of_memory ran, or was too large to"),
      text("parameters", "JSON of all that took effect, defaults included"),
      text("methods",
           "JSON: of each method its version, the hash and the compiler of its library, whether that optimized"),
      text("isa", "instruction set of the kernels: scalar, avx2, avx512 or avx512vnni"),
      count("batch", "sequences"),
      count("layers", "model layers in the workload"),
      count("kv_heads", "KV heads per layer"),
      count("query_heads", "query heads per layer"),
      count("head_dim", "channels of a key; values have as many"),
      count("tokens", "P, the tokens of the prefill"),
      count("decoded_tokens", "appended one by one after the prefill; what follows is of the cache at their end"),
      real("kept_tokens", "1", "mean per head, sinks and tail included"),
      count("elements", "of K and V, all tokens"),
      {"raw_bytes", ColumnType::integer, "B", "elements in the workload's dtype"},
      real("threads", "1", "that measured the cell, a background thread not among them"),
      real("bytes", "B", "what the cache holds and attention reads; its parts add up to it"),
      real("payload_bytes", "B", "codes, outlier values, low-rank coefficients, padding"),
      real("scale_bytes", "B", "scales and zero points"),
      real("index_bytes", "B", "positions, indices, ranks; the block table is not counted"),
      real("basis_bytes", "B", "bases, codebooks, a codec's own state"),
      real("uncompressed_bytes", "B", "sinks, tail, and what has no codec"),
      real("peak_cache_bytes", "B", "the most that `bytes` was while decoding"),
      real("reserved_bytes", "B", "what the allocator holds for the cache, alignment included"),
      real("compression_ratio", "1", "raw_bytes / bytes"),
      real("bits_per_element", "bit", "8 bytes / elements"),
      real("key_error", "1", "|k - k^| / |k| over the kept tokens, mean over layers"),
      real("value_error", "1", "|v - v^| / |v| over the kept tokens, mean over layers"),
      real("output_error", "1", "|o - o^| / |o| over the attention outputs of the judged queries, mean over layers"),
      real("output_cosine", "1", "mean of o.o^ / (|o| |o^|) over output vectors, mean over layers"),
      real("output_error_median", "1", "median of |o - o^| / |o| over all single output vectors"),
      real("output_error_p95", "1", "95th percentile likewise"),
      real("output_error_max", "1", "maximum likewise"),
  };
  add_timing(columns, "compress_seconds", "of selectors and encoding, from warm raw buffers");
  add_timing(columns, "decompress_seconds", "to decompress into the workload's dtype");
  add_timing(columns, "attend_seconds", "of one query per query head and sequence over the whole cache");
  add_timing(columns, "plain_attend_seconds", "of the same by scalar loops that decode a row for each query head");
  add_timing(columns, "append_seconds", "to append a token to all sequences while decoding");
  add_extremes(columns, "append_seconds");
  add_timing(columns, "step_seconds", "of a decode step: append a token, then attend_seconds' query to all so far");
  add_extremes(columns, "step_seconds");
  for (auto& column :
       {real("compress_bandwidth", "B/s", "raw bytes of the prefill / compress_seconds"),
        real("decompress_bandwidth", "B/s", "raw_bytes / decompress_seconds"),
        real("attend_bandwidth", "B/s", "bytes / attend_seconds"),
        real("attend_roofline", "1",
             "attend_bandwidth / peak_read_bandwidth; NaN unless bytes >= 2 x the last-level cache"),
        real("peak_read_bandwidth", "B/s", "of this machine, measured in the run that measured the cell"),
        real("peak_copy_bandwidth", "B/s", "likewise, bytes read plus bytes written"),
        real("peak_bytes", "B", "peak resident memory of the worker above workload and references")}) {
    columns.push_back(column);
  }
  return columns;
}

}  // namespace

const std::vector<ColumnSpec>& cell_columns() {
  static const std::vector<ColumnSpec> columns = make_cell_columns();
  return columns;
}

const std::vector<ColumnSpec>& layer_columns() {
  static const std::vector<ColumnSpec> columns{
      text("id", "of the cell"),
      count("layer", "the model's own number"),
      real("kept_tokens", "1", "mean per head"),
      real("bytes", "B", "of this layer, without state that layers share"),
      real("key_error", "1", "as in cells, of this layer"),
      real("value_error", "1", "as in cells, of this layer"),
      real("output_error", "1", "as in cells, of this layer"),
      real("output_cosine", "1", "as in cells, of this layer"),
  };
  return columns;
}

const std::vector<ColumnSpec>& sample_columns() {
  static const std::vector<ColumnSpec> columns{
      text("id", "of the cell"),
      text("metric", "compress, decompress, attend, plain_attend, append or step"),
      count("sample", "0-based, in order of time"),
      real("seconds", "s", "one timing, all layers"),
  };
  return columns;
}

const std::vector<ColumnSpec>& rung_columns() {
  static const std::vector<ColumnSpec> columns{
      text("id", "of the cell"),
      text("role", "keys or values"),
      count("rung", "0-based place in `adaptive`; -1: raw"),
      text("codec", "JSON of its method and parameters"),
      real("tokens", "1", "that it holds at the end, mean per head and layer; of a role they add up to kept_tokens"),
  };
  return columns;
}

const char* name_of(Status status) {
  constexpr std::array names{"ok", "skipped", "unsupported", "failed", "timeout", "out_of_memory", "crashed"};
  return names.at(static_cast<std::size_t>(status));
}

bool is_failure(const std::string& status) {
  return status == name_of(Status::failed) || status == name_of(Status::timeout) ||
         status == name_of(Status::out_of_memory) || status == name_of(Status::crashed);
}

}  // namespace kvlab
