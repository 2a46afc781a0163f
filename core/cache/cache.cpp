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

void LayerCache::attend(const QueryTensor& queries, float* out, ThreadPool& pool) {
  workspaces_.resize(std::max(workspaces_.size(), pool.threads()));
  pool.parallel_for(shape_.heads(), [&](std::size_t index, std::size_t thread) {
    const auto kv_head = static_cast<std::uint32_t>(index % shape_.kv_heads);
    const std::uint64_t first_head =
        index / shape_.kv_heads * shape_.query_heads + std::uint64_t{kv_head} * shape_.group();
    const std::uint64_t rows = queries.count() * first_head;
    attend_head(*this, heads_[index], kv_head,
                {queries.base + rows * shape_.head_dim_keys, queries.count() * shape_.group(), queries.positions},
                out + rows * shape_.head_dim_values, workspaces_[thread]);
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
  if (!segment.encoded) return rows_in_cache;
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
