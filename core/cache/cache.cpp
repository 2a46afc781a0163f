#include "core/cache/cache.hpp"

#include <algorithm>
#include <string>

#include "core/base/error.hpp"
#include "core/cache/attend.hpp"
#include "core/cache/prefill.hpp"

namespace kvlab {
namespace {

Role make_role(const std::optional<MethodSpec>& spec, const LayerShape& shape, std::uint32_t role) {
  const std::uint64_t channels = role == KVLAB_ROLE_KEYS ? shape.head_dim_keys : shape.head_dim_values;
  Role made{std::nullopt, shape.dtype, channels};
  if (spec) made.codec.emplace(*spec, shape.describe(role));
  return made;
}

}  // namespace

LayerCache::LayerCache(const Pipeline& pipeline, const LayerShape& shape)
    : shape_((shape.check(), shape)),
      pipeline_(pipeline),
      keys_(make_role(pipeline.keys, shape, KVLAB_ROLE_KEYS)),
      values_(make_role(pipeline.values, shape, KVLAB_ROLE_VALUES)),
      heads_(shape.heads()) {
  for (const auto& step : pipeline.select) selectors_.emplace_back(step.selector, shape.describe(KVLAB_ROLE_BOTH));
}

void LayerCache::prefill(const Prefill& input, ThreadPool& pool) {
  constexpr std::uint64_t most_tokens = std::uint64_t{1} << 31;
  if (input.tokens > most_tokens) throw InputError("tokens is " + std::to_string(input.tokens) + "; valid: 0 .. 2^31");
  tokens_ = input.tokens;
  workspaces_.resize(pool.threads());
  arena_.reset(shape_.heads() * head_capacity(pipeline_, keys_, values_, tokens_));
  pool.parallel_for(shape_.heads(), [&](std::size_t index, std::size_t thread) {
    HeadPrefill head(pipeline_, selectors_, shape_, input, arena_, workspaces_[thread], index / shape_.kv_heads,
                     static_cast<std::uint32_t>(index % shape_.kv_heads));
    head.run(keys_, values_, heads_[index]);
  });
}

namespace {

// Into how many parts the tokens of a head are split, so that all threads have work: a matter of the cache alone, for
// a result must not depend on how many threads there are.
std::uint64_t parts_of(std::uint64_t tokens, std::uint64_t heads) {
  constexpr std::uint64_t wanted = 128;  // parts of a layer
  constexpr std::uint64_t least_tokens = 1024;
  return std::clamp<std::uint64_t>(tokens / least_tokens, 1, (wanted + heads - 1) / heads);
}

}  // namespace

void LayerCache::attend(const QueryTensor& queries, float* out, ThreadPool& pool) {
  if (queries.count() == 0) return;
  workspaces_.resize(std::max(workspaces_.size(), pool.threads()));
  const std::uint64_t rows = queries.count() * shape_.group();
  const std::uint64_t size = part_size(*this, rows);
  attend_parts_.clear();
  for (std::size_t head = 0; head < heads_.size(); ++head) {
    const std::uint64_t parts = parts_of(heads_[head].positions.tokens(), heads_.size());
    for (std::uint64_t part = 0; part < parts; ++part) attend_parts_.push_back({head, part, parts});
  }
  float* memory = part_memory_.ensure<float>(attend_parts_.size() * size);
  auto* left = parts_left_.ensure<std::atomic<std::uint64_t>>(heads_.size());
  for (const auto& part : attend_parts_) {
    if (part.index == 0) std::construct_at(left + part.head, part.of);
  }
  pool.parallel_for(attend_parts_.size(), [&](std::size_t index, std::size_t thread) {
    const AttendPart& part = attend_parts_[index];
    const Head& head = heads_[part.head];
    const auto kv_head = static_cast<std::uint32_t>(part.head % shape_.kv_heads);
    const std::uint64_t first_row =
        queries.count() * (part.head / shape_.kv_heads * shape_.query_heads + std::uint64_t{kv_head} * shape_.group());
    const QueryRows own{queries.base + first_row * shape_.head_dim_keys, rows, queries.positions};
    const std::uint64_t tokens = head.positions.tokens();
    float* base = memory + (index - part.index) * size;
    attend_part(*this, head, kv_head, own, tokens * part.index / part.of, tokens * (part.index + 1) / part.of,
                base + part.index * size, workspaces_[thread]);
    if (left[part.head].fetch_sub(1) == 1) {  // the last one merges, always in the same order
      merge_parts(*this, kv_head, own, base, part.of, out + first_row * shape_.head_dim_values, workspaces_[thread]);
    }
  });
}

void LayerCache::decode(const Role& role, const Head& head, std::uint32_t kv_head, const Segment& segment,
                        std::uint64_t first, std::uint64_t count, float* rows, Workspace& workspace) {
  if (!segment.encoded) {
    const std::byte* data = segment.data + (first - segment.first) * role.row_bytes();
    to_f32(role.dtype, data, rows, count * role.channels);
    return;
  }
  const kvlab_block block = block_of(head, kv_head, segment, workspace.positions);
  void* scratch = workspace.codec_scratch.ensure<std::byte>(role.codec->traits().decode_scratch);
  role.codec->decode(block, first - segment.first, count, rows, role.channels, scratch);
}

Bytes LayerCache::bytes() const {
  Bytes sum;
  for (const auto& head : heads_) sum += head.bytes;
  return sum;
}

Bytes total_bytes(std::span<const std::unique_ptr<LayerCache>> layers) {
  Bytes sum;
  std::vector<std::uint64_t> shared;
  for (const auto& layer : layers) {
    sum += layer->bytes();
    for (const Role* role : {&layer->keys(), &layer->values()}) {
      if (!role->codec) continue;
      const kvlab_codec_traits& traits = role->codec->traits();
      if (traits.state_key != 0) {
        if (std::find(shared.begin(), shared.end(), traits.state_key) != shared.end()) continue;
        shared.push_back(traits.state_key);
      }
      sum.bases += traits.state_bytes;
    }
  }
  return sum;
}

std::uint64_t tile_tokens(const Role& role, const Segment& segment) {
  constexpr std::uint64_t rows_in_cache = 64;  // x 128 channels x 4 B = 32 KiB
  if (!segment.encoded) return 2 * rows_in_cache;
  const kvlab_codec_traits& traits = role.codec->traits();
  if (traits.whole_blocks != 0) return segment.tokens;
  return (rows_in_cache + traits.decode_granule - 1) / traits.decode_granule * traits.decode_granule;
}

kvlab_block block_of(const Head& head, std::uint32_t kv_head, const Segment& segment,
                     std::vector<std::uint32_t>& scratch) {
  const auto range = head.positions.range(segment.first, segment.tokens, scratch);
  kvlab_block block{};
  block.struct_size = sizeof block;
  block.heads = 1;
  block.bytes = reinterpret_cast<const std::uint8_t*>(segment.data);
  block.size = segment.size;
  block.tokens = segment.tokens;
  block.positions = range.list;
  block.first_position = range.first;
  block.kv_head = kv_head;
  return block;
}

}  // namespace kvlab
