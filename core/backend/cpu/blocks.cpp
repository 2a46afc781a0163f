#include "core/backend/cpu/blocks.hpp"

namespace kvlab::cpu {

std::uint64_t tile_tokens(const Role& role, const Segment& segment) {
  constexpr std::uint64_t rows_in_cache = 64;  // x 128 channels x 4 B = 32 KiB
  if (!segment.encoded) return 2 * rows_in_cache;
  const kvlab_codec_traits& traits = role.codec(segment).traits();
  if (traits.whole_blocks != 0) return segment.tokens;
  return (rows_in_cache + traits.decode_granule - 1) / traits.decode_granule * traits.decode_granule;
}

kvlab_block block_of(std::uint32_t kv_head, const Segment& segment, const PositionsView::Range& range) {
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

void decode_block(const Role& role, const Segment& segment, const kvlab_block& block, std::uint64_t first,
                  std::uint64_t count, float* rows, Workspace& workspace) {
  const CodecInstance& codec = role.codec(segment);
  void* scratch = workspace.codec_scratch.ensure<std::byte>(codec.traits().decode_scratch);
  codec.decode(block, first, count, rows, role.channels, scratch);
}

void decode(const Role& role, std::uint32_t kv_head, const Segment& segment, const PositionsView& positions,
            std::uint64_t first, std::uint64_t count, float* rows, Workspace& workspace) {
  if (!segment.encoded) {
    to_f32(role.dtype, segment.data + first * role.row_bytes(), rows, count * role.channels);
    return;
  }
  const kvlab_block block =
      block_of(kv_head, segment, positions.range(segment.first, segment.tokens, workspace.positions));
  decode_block(role, segment, block, first, count, rows, workspace);
}

}  // namespace kvlab::cpu
