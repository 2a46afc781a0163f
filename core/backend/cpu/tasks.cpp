#include "core/backend/cpu/tasks.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

#include "core/backend/cpu/blocks.hpp"
#include "core/backend/cpu/rows.hpp"
#include "core/kernels/kernels.hpp"

namespace kvlab::cpu {
namespace {

// Writing past the caches does not first read the line that is written.
void copy_bytes(std::byte* to, const std::byte* from, std::uint64_t bytes, bool past_caches) {
  if (past_caches && reinterpret_cast<std::uintptr_t>(to) % Arena::alignment == 0) {
    kernels().stream_copy(to, from, bytes);
  } else {
    std::memcpy(to, from, bytes);
  }
}

std::shared_ptr<Piece> allocate(Arena& arena, std::uint64_t bytes, Promise* promise) {
  return promise == nullptr ? arena.allocate(bytes, bytes) : arena.allocate(bytes, bytes, *promise);
}

Segment block_made(const kvlab_encode_out& out, std::uint8_t rung, std::uint64_t tokens, std::shared_ptr<Piece> piece) {
  const Bytes bytes{out.parts.payload, out.parts.scales, out.parts.indices, out.parts.bases, 0};
  const std::byte* data = piece->data();
  return {0, tokens, tokens, data, out.size, true, rung, bytes, std::move(piece)};
}

kvlab_encode_out output(const CodecInstance& codec, std::uint64_t tokens) {
  kvlab_encode_out out{};
  out.struct_size = sizeof out;
  out.capacity = codec.bound(tokens);
  return out;
}

kvlab_view view_of(const TokenRows& rows, std::uint64_t tokens, std::uint64_t channels) {
  kvlab_view view{};
  view.base = rows.base;
  view.dtype = static_cast<kvlab_dtype>(rows.dtype);
  view.heads = 1;
  view.tokens = tokens;
  view.channels = channels;
  view.token_stride = rows.row_step / static_cast<std::int64_t>(size_of(rows.dtype));
  return view;
}

// A block whose size is known before is written where it stays. Others go to scratch first; what is then left to do is
// a copy within the cache.
void encode_rows(EncodeTask& task, const TokenRows& rows, Arena& arena, Workspace& workspace) {
  const CodecInstance& codec = task.role->codecs[task.rung];
  const auto range = task.positions.range(task.slot, task.tokens, workspace.positions);
  kvlab_encode_in in{};
  in.struct_size = sizeof in;
  in.kv_head = task.kv_head;
  in.view = view_of(rows, task.tokens, task.role->channels);
  in.positions = range.list;
  in.first_position = range.first;
  in.scratch = workspace.codec_scratch.ensure<std::byte>(codec.traits().encode_scratch);
  kvlab_encode_out out = output(codec, task.tokens);
  const bool stays = codec.traits().fills_bound != 0;
  if (stays) {
    if (task.piece == nullptr) task.piece = allocate(arena, out.capacity, task.promise);
    out.bytes = reinterpret_cast<std::uint8_t*>(task.piece->data());
    out.flags = task.past_caches ? KVLAB_PAST_CACHES : 0;
  } else {
    out.bytes = workspace.encoded.ensure<std::uint8_t>(out.capacity);
  }
  codec.encode(in, out);
  if (!stays) {
    task.piece = allocate(arena, out.size, task.promise);
    copy_bytes(task.piece->data(), reinterpret_cast<const std::byte*>(out.bytes), out.size, task.past_caches);
  }
  task.made = block_made(out, task.rung, task.tokens, std::move(task.piece));
}

// Returns the rows that it copied.
TokenRows copy_rows(const CopyTask& task, const Source& source, std::byte* to, Workspace& workspace) {
  const Role& role = *task.role;
  const std::uint64_t row = role.row_bytes();
  const TokenRows rows = rows_of(role, std::span(&source, 1), role.dtype, workspace.rows, workspace);
  if (rows.side_by_side(role.channels)) {
    copy_bytes(to, rows.base, source.count * row, task.past_caches);
  } else {
    for (std::uint64_t t = 0; t < source.count; ++t) std::memcpy(to + t * row, rows.from(t).base, row);
  }
  return rows;
}

}  // namespace

void check(const CheckTask& task) {
  Source all;
  all.count = task.count;
  check_rows(task.origin, task.rows, all);
}

// A caller's rows are looked at when they are used, a few at a time, which costs least: they are in a cache, and what
// fetches them ahead is at its work.
void copy(const CopyTask& task, const Work& work, Workspace& workspace) {
  const Source& source = work.sources[task.source];
  if (task.origin.shape == nullptr) {
    copy_rows(task, source, task.to, workspace);
    return;
  }
  constexpr std::uint64_t step = 256;  // rows
  Source part = source;
  for (std::uint64_t done = 0; done < source.count; done += part.count) {
    part.count = std::min(source.count - done, step);
    check_rows(task.origin, copy_rows(task, part, task.to + done * task.role->row_bytes(), workspace), part);
    if (part.picked != nullptr) part.picked += part.count;
    part.first += part.count;
  }
}

// A codec that failed for what is in the rows is not to blame.
void encode(EncodeTask& task, const Work& work, Arena& arena, Workspace& workspace) {
  const auto sources = work.of(task.sources);
  const TokenRows rows = rows_of(*task.role, sources, task.role->dtype, workspace.rows, workspace);
  if (task.origin.shape == nullptr) {
    encode_rows(task, rows, arena, workspace);
    return;
  }
  try {
    encode_rows(task, rows, arena, workspace);
  } catch (const MethodError&) {
    check_rows(task.origin, rows, sources.front());
    throw;
  }
  check_rows(task.origin, rows, sources.front());
}

void gather(GatherTask& task, const Work& work, Arena& arena, Workspace& workspace) {
  const Source& source = work.sources[task.source];
  const Segment& segment = *source.block;
  const CodecInstance& codec = task.role->codec(segment);
  task.refused = true;
  if (!codec.gathers()) return;
  kvlab_encode_out out = output(codec, source.count);
  out.bytes = workspace.encoded.ensure<std::uint8_t>(out.capacity);
  void* scratch = workspace.codec_scratch.ensure<std::byte>(codec.traits().encode_scratch);
  const kvlab_block block =
      block_of(source.kv_head, segment, source.positions.range(source.slot, segment.tokens, workspace.positions));
  if (!codec.gather(block, {source.picked, source.count}, out, scratch)) return;
  auto piece = allocate(arena, out.size, task.promise);
  std::memcpy(piece->data(), out.bytes, out.size);
  task.made = block_made(out, segment.rung, source.count, std::move(piece));
  task.refused = false;
}

void score(const ScoreTask& task, const Work& work, Workspace& workspace) {
  kvlab_selector_in in{};
  in.struct_size = sizeof in;
  in.kv_head = task.kv_head;
  in.sequence = task.sequence;
  in.tokens = task.tokens;
  in.positions = task.positions;
  if (task.positions == nullptr) {
    workspace.positions.resize(task.tokens);
    std::iota(workspace.positions.begin(), workspace.positions.end(), task.first_position);
    in.positions = workspace.positions.data();
  }
  const auto rows = [&](const Role* role, const Sources& range, const Origin& origin, Buffer& into) {
    kvlab_view none{};
    if (range.count == 0) return none;
    const auto sources = work.of(range);
    const TokenRows found = rows_of(*role, sources, task.dtype, into, workspace);
    if (origin.shape != nullptr) check_rows(origin, found, sources.front());
    return view_of(found, task.tokens, role->channels);
  };
  in.keys = rows(task.keys_role, task.keys, task.keys_origin, workspace.rows);
  in.values = rows(task.values_role, task.values, task.values_origin, workspace.more_rows);
  in.observed = task.observed;
  in.scratch = workspace.codec_scratch.ensure<std::byte>(task.selector->scratch(task.tokens, in.observed.count));
  float* out = task.stored != nullptr ? task.stored : task.out;
  task.selector->scores(in, {out, task.tokens});
  if (task.out != nullptr && task.out != out) std::copy_n(out, task.tokens, task.out);
}

}  // namespace kvlab::cpu
