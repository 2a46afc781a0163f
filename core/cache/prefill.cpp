#include "core/cache/prefill.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "core/kernels/kernels.hpp"

namespace kvlab {
namespace {

// A run of neighbours needs no copy: it is a view of the workload itself.
bool contiguous(std::span<const std::uint32_t> positions) {
  return positions.empty() || positions.back() - positions.front() + 1 == positions.size();
}

constexpr std::size_t beyond_caches = std::size_t{64} << 20;

std::uint64_t role_capacity(const Role& role, std::uint64_t sinks, std::uint64_t tail, std::uint64_t kept) {
  if (!role.codec) return Arena::padded(kept * role.row_bytes());
  const std::uint64_t raw = std::min(sinks + tail, kept);
  const std::uint64_t block = role.codec->traits().block_tokens;
  const std::uint64_t coded = kept - raw;
  std::uint64_t bytes = 2 * Arena::alignment + raw * role.row_bytes();
  if (coded >= block) bytes += coded / block * Arena::padded(role.codec->bound(block));
  if (coded % block != 0) bytes += Arena::padded(role.codec->bound(coded % block));
  return bytes;
}

}  // namespace

std::uint64_t head_capacity(const Pipeline& pipeline, const Role& keys, const Role& values, std::uint64_t tokens) {
  const std::uint64_t kept = pipeline.kept_of(tokens);
  const std::uint64_t positions = kept == tokens ? 0 : Arena::padded(kept * sizeof(std::uint32_t));
  return positions + role_capacity(keys, pipeline.sinks, pipeline.tail, kept) +
         role_capacity(values, pipeline.sinks, pipeline.tail, kept);
}

HeadPrefill::HeadPrefill(const Pipeline& pipeline, std::span<const SelectorInstance> selectors, const LayerShape& shape,
                         const Prefill& input, Arena& arena, Workspace& workspace, std::uint64_t sequence,
                         std::uint32_t kv_head)
    : pipeline_(pipeline),
      selectors_(selectors),
      shape_(shape),
      input_(input),
      arena_(arena),
      workspace_(workspace),
      sequence_(sequence),
      kv_head_(kv_head),
      kept_(workspace.kept) {}

// What will not be found in a cache when it is read goes past the caches: writing then does not first read the line.
void HeadPrefill::copy(std::byte* to, const std::byte* from, std::size_t count) const {
  if (arena_.capacity() >= beyond_caches) {
    kernels().stream_copy(to, from, count);
  } else {
    std::memcpy(to, from, count);
  }
}

void HeadPrefill::run(const Role& keys, const Role& values, Head& head) {
  select();
  const std::uint64_t words = Positions::words_for(kept_, input_.tokens);
  auto* stored = reinterpret_cast<std::uint32_t*>(arena_.allocate(words * sizeof(std::uint32_t)));
  head.positions = Positions::store(kept_, {stored, words});
  head.bytes = Bytes{};
  head.bytes.indices = words * sizeof(std::uint32_t);
  store_role(keys, input_.keys, head, head.keys, head.bytes);
  store_role(values, input_.values, head, head.values, head.bytes);
}

void HeadPrefill::select() {
  kept_.resize(input_.tokens);
  std::iota(kept_.begin(), kept_.end(), 0U);
  for (std::size_t step = 0; step < selectors_.size(); ++step) {
    apply(selectors_[step], pipeline_.select[step].budget.of(kept_.size()));
  }
}

void HeadPrefill::apply(const SelectorInstance& selector, std::uint64_t budget) {
  const std::uint64_t present = kept_.size();
  kvlab_selector_in in{};
  in.struct_size = sizeof in;
  in.kv_head = kv_head_;
  in.sequence = static_cast<std::uint32_t>(sequence_);
  in.tokens = present;
  in.positions = kept_.data();
  if ((selector.reads() & KVLAB_READS_KEYS) != 0) {
    in.keys = view(input_.keys, shape_.head_dim_keys, kept_, workspace_.rows);
  }
  if ((selector.reads() & KVLAB_READS_VALUES) != 0) {
    in.values = view(input_.values, shape_.head_dim_values, kept_, workspace_.more_rows);
  }
  if ((selector.reads() & KVLAB_READS_QUERIES) != 0) {
    const QueryTensor& observed = input_.observed;
    const std::uint64_t head_size = observed.count() * shape_.head_dim_keys;
    const std::uint64_t first_head = sequence_ * shape_.query_heads + std::uint64_t{kv_head_} * shape_.group();
    in.observed = {observed.base + first_head * head_size,
                   shape_.group(),
                   observed.count(),
                   shape_.head_dim_keys,
                   static_cast<std::int64_t>(head_size),
                   static_cast<std::int64_t>(shape_.head_dim_keys),
                   observed.positions.data()};
  }
  in.scratch = workspace_.codec_scratch.ensure<std::byte>(selector.scratch(present, in.observed.count));
  const std::span scores(workspace_.floats.ensure<float>(present), present);
  selector.scores(in, scores);
  auto& stay = workspace_.survivors;
  select_highest(scores, pipeline_.sinks, pipeline_.tail, budget, stay);
  for (auto& index : stay) index = kept_[index];
  std::swap(kept_, stay);
}

kvlab_view HeadPrefill::view(const KvTensor& tensor, std::uint64_t channels, std::span<const std::uint32_t> tokens,
                             Buffer& gathered) const {
  const std::uint64_t element = size_of(shape_.dtype);
  const std::byte* base = tensor.head(sequence_, kv_head_, shape_.dtype);
  kvlab_view view{};
  view.dtype = static_cast<kvlab_dtype>(shape_.dtype);
  view.heads = 1;
  view.tokens = tokens.size();
  view.channels = channels;
  view.token_stride = tensor.token_stride;
  if (contiguous(tokens)) {
    const std::uint64_t first = tokens.empty() ? 0 : tokens.front();
    view.base = base + static_cast<std::int64_t>(first * element) * tensor.token_stride;
    return view;
  }
  const std::uint64_t row = channels * element;
  auto* rows = gathered.ensure<std::byte>(tokens.size() * row);
  for (std::size_t t = 0; t < tokens.size(); ++t) {
    std::memcpy(rows + t * row, base + static_cast<std::int64_t>(tokens[t] * element) * tensor.token_stride, row);
  }
  view.base = rows;
  view.token_stride = static_cast<std::int64_t>(channels);
  return view;
}

void HeadPrefill::store_role(const Role& role, const KvTensor& tensor, const Head& head, std::vector<Segment>& segments,
                             Bytes& bytes) {
  segments.clear();
  const std::uint64_t kept = kept_.size();
  const std::uint64_t sinks = role.codec ? std::min(pipeline_.sinks, kept) : kept;
  const std::uint64_t tail = role.codec ? std::min(pipeline_.tail, kept - sinks) : 0;
  if (sinks > 0) segments.push_back(store_raw(role, tensor, 0, sinks));
  const std::uint64_t block = role.codec ? role.codec->traits().block_tokens : 1;
  for (std::uint64_t first = sinks; first < kept - tail; first += block) {
    segments.push_back(store_block(role, tensor, head, first, std::min(block, kept - tail - first), bytes));
  }
  if (tail > 0) segments.push_back(store_raw(role, tensor, kept - tail, tail));
  for (const auto& segment : segments) bytes.uncompressed += segment.encoded ? 0 : segment.size;
}

Segment HeadPrefill::store_raw(const Role& role, const KvTensor& tensor, std::uint64_t first, std::uint64_t count) {
  const std::uint64_t row = role.row_bytes();
  std::byte* data = arena_.allocate(count * row);
  const std::byte* base = tensor.head(sequence_, kv_head_, shape_.dtype);
  const std::int64_t step = tensor.token_stride * static_cast<std::int64_t>(size_of(shape_.dtype));
  const std::span tokens(kept_.data() + first, count);
  if (contiguous(tokens) && step == static_cast<std::int64_t>(row)) {
    copy(data, base + tokens.front() * step, count * row);
  } else {
    for (std::uint64_t t = 0; t < count; ++t) std::memcpy(data + t * row, base + tokens[t] * step, row);
  }
  return {first, count, data, count * row, false};
}

// A block is written to scratch first, for only then is its size known; what it takes is then a copy within the cache.
Segment HeadPrefill::store_block(const Role& role, const KvTensor& tensor, const Head& head, std::uint64_t first,
                                 std::uint64_t count, Bytes& bytes) {
  const CodecInstance& codec = *role.codec;
  const auto range = head.positions.range(first, count, workspace_.positions);
  kvlab_encode_in in{};
  in.struct_size = sizeof in;
  in.kv_head = kv_head_;
  in.view = view(tensor, role.channels, std::span(kept_).subspan(first, count), workspace_.rows);
  in.positions = range.list;
  in.first_position = range.first;
  in.scratch = workspace_.codec_scratch.ensure<std::byte>(codec.traits().encode_scratch);
  kvlab_encode_out out{};
  out.struct_size = sizeof out;
  out.capacity = codec.bound(count);
  out.bytes = workspace_.encoded.ensure<std::uint8_t>(out.capacity);
  codec.encode(in, out);
  std::byte* data = arena_.allocate(out.size);
  copy(data, reinterpret_cast<const std::byte*>(out.bytes), out.size);
  bytes += {out.parts.payload, out.parts.scales, out.parts.indices, out.parts.bases, 0};
  return {first, count, data, out.size, true};
}

}  // namespace kvlab
