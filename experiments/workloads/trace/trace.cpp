#include "experiments/workloads/trace/trace.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <set>

#include "core/base/error.hpp"

namespace kvlab {
namespace {

[[noreturn]] void fail(const std::string& what) { throw InputError(what); }

std::int64_t bounded(const h5::Object& object, const char* name, std::int64_t least, std::int64_t most) {
  const std::int64_t value = h5::read_integer(object, name);
  if (value < least || value > most) {
    fail("attribute '" + std::string(name) + "' is " + std::to_string(value) + "; valid: " + std::to_string(least) +
         " .. " + std::to_string(most));
  }
  return value;
}

bool is_half(hid_t type) {
  std::size_t sign = 0;
  std::size_t exponent = 0;
  std::size_t exponent_bits = 0;
  std::size_t mantissa = 0;
  std::size_t mantissa_bits = 0;
  H5Tget_fields(type, &sign, &exponent, &exponent_bits, &mantissa, &mantissa_bits);
  return H5Tget_size(type) == 2 && exponent_bits == 5 && mantissa_bits == 10 && H5Tget_ebias(type) == 15;
}

Dtype dtype_of(const h5::Object& dataset) {
  const h5::Object type(H5Dget_type(dataset.id()), H5Tclose);
  const std::string name = h5::name_of(dataset);
  if (H5Tget_class(type.id()) == H5T_FLOAT) {
    if (H5Tget_size(type.id()) == 4) return Dtype::f32;
    if (is_half(type.id())) return Dtype::f16;
  }
  if (H5Tget_class(type.id()) == H5T_INTEGER && H5Tget_size(type.id()) == 2 && h5::has_attribute(dataset, "element") &&
      h5::read_string(dataset, "element") == "bf16") {
    return Dtype::bf16;
  }
  fail(name + " is neither float32, float16 nor uint16 with the attribute element = \"bf16\"");
}

std::string text_of_shape(const std::vector<std::uint64_t>& shape) {
  std::string text = "[";
  for (const auto extent : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(extent);
  return text + "]";
}

h5::Object open_shaped(const h5::Object& group, const char* name, const std::vector<std::uint64_t>& shape) {
  h5::Object dataset = h5::open_dataset(group, name);
  if (h5::shape_of(dataset) != shape) {
    fail(h5::name_of(dataset) + " has shape " + text_of_shape(h5::shape_of(dataset)) + ", not " + text_of_shape(shape));
  }
  h5::require_stored(dataset);
  return dataset;
}

// Part of a dataset of four dimensions: one index of the first, `extents` of the others from their start, as `dtype`.
void read_slab(const h5::Object& dataset, std::uint64_t first, std::array<std::uint64_t, 3> extents, void* out) {
  const std::array<hsize_t, 4> start{first, 0, 0, 0};
  const std::array<hsize_t, 4> count{1, extents[0], extents[1], extents[2]};
  const h5::Object file_space(H5Dget_space(dataset.id()), H5Sclose);
  const h5::Object memory_space(H5Screate_simple(4, count.data(), nullptr), H5Sclose);
  const h5::Object file_type(H5Dget_type(dataset.id()), H5Tclose);
  const h5::Object memory_type(H5Tcopy(file_type.id()), H5Tclose);
  H5Tset_order(memory_type.id(), H5T_ORDER_LE);
  if (H5Sselect_hyperslab(file_space.id(), H5S_SELECT_SET, start.data(), nullptr, count.data(), nullptr) < 0 ||
      H5Dread(dataset.id(), memory_type.id(), memory_space.id(), file_space.id(), H5P_DEFAULT, out) < 0) {
    fail(h5::name_of(dataset) + " cannot be read; is the file cut short?");
  }
}

void read_rope(const h5::Object& file, TraceHeader& header) {
  const std::string style = h5::read_string(file, "rope_style");
  if (style == "none") return;
  if (style != "half" && style != "interleaved") {
    fail("attribute 'rope_style' is '" + style + "'; valid: half, interleaved, none");
  }
  header.rope_style = style == "half" ? RopeStyle::half : RopeStyle::interleaved;
  const auto rope_dim = static_cast<std::uint64_t>(bounded(file, "rope_dim", 2, header.head_dim));
  if (rope_dim % 2 != 0) fail("attribute 'rope_dim' is odd");
  header.rope_theta = h5::read_real(file, "rope_theta");
  if (!std::isfinite(header.rope_theta) || header.rope_theta <= 0) fail("attribute 'rope_theta' is not above 0");
  if (h5::has_link(file, "rope_inv_freq")) {
    header.inv_freq = h5::read_reals(open_shaped(file, "rope_inv_freq", {rope_dim / 2}));
  } else {
    for (std::uint64_t i = 0; i < rope_dim / 2; ++i) {
      header.inv_freq.push_back(
          std::pow(header.rope_theta, -2.0 * static_cast<double>(i) / static_cast<double>(rope_dim)));
    }
  }
  if (!std::all_of(header.inv_freq.begin(), header.inv_freq.end(), [](double f) { return std::isfinite(f); })) {
    fail("rope_inv_freq is not finite");
  }
}

void read_positions(const h5::Object& file, TraceHeader& header) {
  const h5::Object dataset = h5::open_dataset(file, "query_positions");
  if (h5::kind_of(dataset) != h5::Kind::integer) fail("query_positions are not integers");
  std::int64_t previous = -1;
  for (const std::int64_t position : h5::read_integers(dataset)) {
    if (position <= previous) fail("query_positions do not ascend, or begin below 0");
    if (position >= std::int64_t{1} << 31) fail("query_positions go beyond 2^31");
    header.query_positions.push_back(static_cast<std::uint32_t>(position));
    previous = position;
  }
}

TraceLayer read_layer(const h5::Object& file, const std::string& name, TraceHeader& header) {
  const h5::Object group = h5::open_group(file, name);
  TraceLayer layer;
  layer.group = name;
  layer.layer = static_cast<std::uint32_t>(bounded(group, "layer", 0, header.model_layers - 1));
  if (h5::has_attribute(group, "window")) {
    layer.window = static_cast<std::uint64_t>(bounded(group, "window", 0, std::numeric_limits<std::int32_t>::max()));
  }
  const h5::Object keys = h5::open_dataset(group, "keys");
  const auto shape = h5::shape_of(keys);
  constexpr std::uint64_t most = std::uint64_t{1} << 31;
  if (shape.size() != 4 || shape[0] < 1 || shape[0] > most || shape[2] < 1 || shape[2] > most) {
    fail(h5::name_of(keys) + " has shape " + text_of_shape(shape) + ", not [sequence, kv_head, token, channel]");
  }
  if (header.sequences == 0) {  // the first layer says how many there are
    header.sequences = shape[0];
    header.tokens = shape[2];
    header.dtype = dtype_of(keys);
  }
  const std::vector<std::uint64_t> wanted{header.sequences, header.kv_heads, header.tokens, header.head_dim};
  for (const char* tensor : {"keys", "values"}) {
    const h5::Object dataset = open_shaped(group, tensor, wanted);
    if (dtype_of(dataset) != header.dtype) fail(h5::name_of(dataset) + " has another element type than the first keys");
  }
  dtype_of(open_shaped(group, "queries",
                       {header.sequences, header.query_heads, header.query_positions.size(), header.head_dim}));
  return layer;
}

void read_layers(const h5::Object& file, TraceHeader& header) {
  std::set<std::uint32_t> numbers;
  for (const auto& name : h5::children(file)) {
    if (!name.starts_with("layer_")) continue;
    header.layers.push_back(read_layer(file, name, header));
    if (!numbers.insert(header.layers.back().layer).second) fail("two groups are of the same layer");
  }
  if (header.layers.empty()) fail("it has no group layer_NNN");
  std::sort(header.layers.begin(), header.layers.end(), [](const auto& a, const auto& b) { return a.layer < b.layer; });
}

TraceHeader read_header(const h5::Object& file) {
  if (!h5::has_attribute(file, "format") || h5::read_string(file, "format") != "kvlab-trace") {
    fail("it is no trace: the root's attribute 'format' is not 'kvlab-trace'");
  }
  bounded(file, "version", 1, 1);
  TraceHeader header;
  header.model = h5::read_string(file, "model");
  header.model_license = h5::read_string(file, "model_license");
  header.text = h5::read_string(file, "text");
  header.model_layers = static_cast<std::uint32_t>(bounded(file, "model_layers", 1, 100'000));
  header.kv_heads = static_cast<std::uint32_t>(bounded(file, "kv_heads", 1, 65536));
  header.query_heads = static_cast<std::uint32_t>(bounded(file, "query_heads", 1, 65536));
  header.head_dim = static_cast<std::uint32_t>(bounded(file, "head_dim", 1, 512));
  if (header.query_heads % header.kv_heads != 0) fail("query_heads is not a multiple of kv_heads");
  header.attention_scale = h5::read_real(file, "attention_scale");
  if (!std::isfinite(header.attention_scale) || header.attention_scale <= 0) {
    fail("attribute 'attention_scale' is not above 0");
  }
  read_rope(file, header);
  read_positions(file, header);
  read_layers(file, header);
  header.prefill_tokens =
      static_cast<std::uint64_t>(bounded(file, "prefill_tokens", 1, static_cast<std::int64_t>(header.tokens)));
  if (!header.query_positions.empty() && header.query_positions.back() >= header.tokens) {
    fail("query_positions go beyond the " + std::to_string(header.tokens) + " tokens");
  }
  if (h5::has_link(file, "token_ids")) open_shaped(file, "token_ids", {header.sequences, header.tokens});
  return header;
}

void require_finite(const std::vector<float>& values, const TraceLayer& layer, const char* name,
                    std::uint64_t sequence) {
  for (const float value : values) {
    if (!std::isfinite(value)) {
      fail("/" + layer.group + "/" + name + " holds NaN or infinity in sequence " + std::to_string(sequence));
    }
  }
}

}  // namespace

Trace::Trace(const h5::Object& file) : file_(file), header_(read_header(file_)) {}

void Trace::read_tensor(const TraceLayer& layer, const char* name, std::uint64_t sequence, std::uint64_t tokens,
                        void* out) const {
  const h5::Object dataset = h5::open_dataset(h5::open_group(file_, layer.group), name);
  read_slab(dataset, sequence, {header_.kv_heads, tokens, header_.head_dim}, out);
}

void Trace::read_queries(const TraceLayer& layer, std::uint64_t sequence, std::vector<float>& out) const {
  const h5::Object dataset = h5::open_dataset(h5::open_group(file_, layer.group), "queries");
  const Dtype dtype = dtype_of(dataset);
  out.resize(header_.query_heads * header_.query_positions.size() * header_.head_dim);
  if (out.empty()) return;
  std::vector<std::byte> stored(out.size() * size_of(dtype));
  read_slab(dataset, sequence, {header_.query_heads, header_.query_positions.size(), header_.head_dim}, stored.data());
  to_f32(dtype, stored.data(), out.data(), out.size());
}

void Trace::check_values() const {
  const std::size_t elements = std::size_t{header_.kv_heads} * header_.tokens * header_.head_dim;
  std::vector<std::byte> stored(elements * size_of(header_.dtype));
  std::vector<float> values(elements);
  for (const auto& layer : header_.layers) {
    for (std::uint64_t sequence = 0; sequence < header_.sequences; ++sequence) {
      for (const char* name : {"keys", "values"}) {
        read_tensor(layer, name, sequence, header_.tokens, stored.data());
        values.resize(elements);
        to_f32(header_.dtype, stored.data(), values.data(), elements);
        require_finite(values, layer, name, sequence);
      }
      read_queries(layer, sequence, values);
      require_finite(values, layer, "queries", sequence);
    }
  }
}

}  // namespace kvlab
