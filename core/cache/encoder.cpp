#include "core/cache/encoder.hpp"

#include <algorithm>
#include <cstring>

#include "core/kernels/kernels.hpp"

namespace kvlab {

std::uint64_t chunk_rows(std::uint64_t block, std::uint64_t offset) {
  constexpr std::uint64_t most = 256;
  return block == 0 ? most : std::min(most, block - offset);
}

// Writing past the caches does not first read the line that is written.
void HeadEncoder::copy(std::byte* to, const std::byte* from, std::uint64_t bytes) const {
  if (past_caches_ && reinterpret_cast<std::uintptr_t>(to) % Arena::alignment == 0) {
    kernels().stream_copy(to, from, bytes);
  } else {
    std::memcpy(to, from, bytes);
  }
}

void HeadEncoder::copy_rows(std::byte* to, const TokenRows& rows, std::uint64_t count) const {
  const std::uint64_t row = role_.row_bytes();
  if (rows.row_step == static_cast<std::int64_t>(row)) {
    if (count > 0) copy(to, rows.base, count * row);
    return;
  }
  for (std::uint64_t t = 0; t < count; ++t) std::memcpy(to + t * row, rows.from(t).base, row);
}

Segment HeadEncoder::raw(const TokenRows& rows, std::uint64_t first, std::uint64_t count, std::uint64_t room) const {
  Segment segment = open(first, count, room);
  fill(segment, 0, rows, count);
  return segment;
}

void HeadEncoder::fill(const Segment& segment, std::uint64_t token, const TokenRows& rows, std::uint64_t count) const {
  copy_rows(segment.piece->data() + token * role_.row_bytes(), rows, count);
}

Segment HeadEncoder::open(std::uint64_t first, std::uint64_t count, std::uint64_t room) const {
  const std::uint64_t row = role_.row_bytes();
  auto piece = arena_.allocate(room * row, count * row);
  Bytes bytes;
  bytes.uncompressed = count * row;
  return {first, count, room, piece->data(), count * row, false, 0, bytes, std::move(piece)};
}

void HeadEncoder::extend(Segment& segment, const TokenRows& rows, std::uint64_t count) const {
  const std::uint64_t row = role_.row_bytes();
  if (segment.piece.use_count() > 1) {
    auto own = arena_.allocate(segment.piece->capacity(), segment.size);
    std::memcpy(own->data(), segment.data, segment.size);
    segment.piece = std::move(own);
    segment.data = segment.piece->data();
  }
  copy_rows(segment.piece->data() + segment.size, rows, count);
  segment.tokens += count;
  segment.size += count * row;
  segment.bytes.uncompressed = segment.size;
  segment.piece->use(segment.size);
}

// A block whose size is known before is written where it stays. Others go to scratch first; what is then left to do is
// a copy within the cache.
Segment HeadEncoder::block(std::uint8_t rung, const TokenRows& rows, const Positions::Range& positions,
                           std::uint64_t first, std::uint64_t count, Promise* room) const {
  const CodecInstance& codec = role_.codecs[rung];
  const auto element = static_cast<std::int64_t>(size_of(role_.dtype));
  kvlab_encode_in in{};
  in.struct_size = sizeof in;
  in.kv_head = kv_head_;
  in.view.base = rows.base;
  in.view.dtype = static_cast<kvlab_dtype>(role_.dtype);
  in.view.heads = 1;
  in.view.tokens = count;
  in.view.channels = role_.channels;
  in.view.token_stride = rows.row_step / element;
  in.positions = positions.list;
  in.first_position = positions.first;
  in.scratch = workspace_.codec_scratch.ensure<std::byte>(codec.traits().encode_scratch);
  kvlab_encode_out out{};
  out.struct_size = sizeof out;
  out.capacity = codec.bound(count);
  if (codec.traits().fills_bound != 0) {
    auto piece = allocate(out.capacity, room);
    out.bytes = reinterpret_cast<std::uint8_t*>(piece->data());
    out.flags = past_caches_ ? KVLAB_PAST_CACHES : 0;
    codec.encode(in, out);
    return segment_of(out, rung, first, count, std::move(piece));
  }
  out.bytes = workspace_.encoded.ensure<std::uint8_t>(out.capacity);
  codec.encode(in, out);
  return put(out, rung, first, count, room);
}

bool HeadEncoder::gather(const Segment& segment, const kvlab_block& block, std::span<const std::uint32_t> keep,
                         Segment& out) const {
  const CodecInstance& codec = role_.codec(segment);
  if (!codec.gathers()) return false;
  kvlab_encode_out encoded{};
  encoded.struct_size = sizeof encoded;
  encoded.capacity = codec.bound(keep.size());
  encoded.bytes = workspace_.encoded.ensure<std::uint8_t>(encoded.capacity);
  void* scratch = workspace_.codec_scratch.ensure<std::byte>(codec.traits().encode_scratch);
  if (!codec.gather(block, keep, encoded, scratch)) return false;
  out = put(encoded, segment.rung, segment.first, keep.size(), nullptr);
  return true;
}

Segment HeadEncoder::put(const kvlab_encode_out& out, std::uint8_t rung, std::uint64_t first, std::uint64_t count,
                         Promise* room) const {
  auto piece = allocate(out.size, room);
  copy(piece->data(), reinterpret_cast<const std::byte*>(out.bytes), out.size);
  return segment_of(out, rung, first, count, std::move(piece));
}

std::shared_ptr<Piece> HeadEncoder::allocate(std::uint64_t bytes, Promise* room) const {
  return room == nullptr ? arena_.allocate(bytes, bytes) : arena_.allocate(bytes, bytes, *room);
}

Segment HeadEncoder::segment_of(const kvlab_encode_out& out, std::uint8_t rung, std::uint64_t first,
                                std::uint64_t count, std::shared_ptr<Piece> piece) {
  const Bytes bytes{out.parts.payload, out.parts.scales, out.parts.indices, out.parts.bases, 0};
  return {first, count, count, piece->data(), out.size, true, rung, bytes, std::move(piece)};
}

}  // namespace kvlab
