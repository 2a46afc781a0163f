#include "core/head/head.hpp"

#include <algorithm>
#include <iterator>

namespace kvlab {
namespace {

void put(const Encoding& encoding, std::vector<Segment>& segments) {
  const auto is_from = [&](const Segment& s) { return s.encoding == &encoding; };
  const auto behind = std::find_if(segments.rbegin(), segments.rend(), is_from);  // new blocks are at the end
  const auto end = behind.base();
  const auto begin = std::find_if_not(behind, segments.rend(), is_from).base();
  std::vector<Segment> blocks = encoding.blocks();
  for (auto& block : blocks) block.first += begin->first;
  *begin = std::move(blocks.front());
  const auto rest = segments.erase(std::next(begin), end);
  segments.insert(rest, std::make_move_iterator(std::next(blocks.begin())), std::make_move_iterator(blocks.end()));
}

}  // namespace

std::uint64_t bytes_of(const Role& role, const ChunkPlace& chunk) {
  return Arena::padded(chunk.capacity * role.row_bytes());
}

std::uint64_t bytes_of(const Role& role, const BlockPlace& block) {
  return Arena::padded(role.codecs[block.rung].bound(block.tokens));
}

std::uint64_t capacity_of(const Role& role, const Layout& layout) {
  std::uint64_t bytes = 0;
  for (const auto& chunk : layout.chunks) bytes += bytes_of(role, chunk);
  for (const auto& block : layout.blocks) bytes += bytes_of(role, block);
  return bytes;
}

Segment open_chunk(const Role& role, const ChunkPlace& chunk, Arena& arena, Promise& promise) {
  const std::uint64_t size = chunk.tokens * role.row_bytes();
  auto piece = arena.allocate(chunk.capacity * role.row_bytes(), size, promise);
  Segment segment;
  segment.first = chunk.first;
  segment.tokens = chunk.tokens;
  segment.capacity = chunk.capacity;
  segment.data = piece->data();
  segment.size = size;
  segment.bytes.uncompressed = size;
  segment.piece = std::move(piece);
  return segment;
}

void install(Head& head) {
  auto& all = head.encodings;
  for (std::size_t i = 0; i < all.size();) {
    if (!all[i]->ready()) {
      ++i;
      continue;
    }
    put(*all[i], head.of(all[i]->role().which).segments);
    all.erase(all.begin() + static_cast<std::ptrdiff_t>(i));
  }
}

}  // namespace kvlab
