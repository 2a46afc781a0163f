#include "core/backend/cpu/rows.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "core/backend/cpu/blocks.hpp"
#include "core/base/finite.hpp"

namespace kvlab::cpu {
namespace {

// One source's rows behind another's.
class Gatherer {
 public:
  Gatherer(const Role& role, Dtype dtype, std::byte* to, Workspace& workspace)
      : role_(role), dtype_(dtype), row_(role.channels * size_of(dtype)), to_(to), workspace_(workspace) {}

  void add(const Source& source) {
    if (source.block == nullptr || !source.block->encoded) {
      add_raw(source);
    } else {
      add_block(source);
    }
  }

 private:
  void put(Dtype from, const std::byte* rows, std::uint64_t count) {
    const std::uint64_t elements = count * role_.channels;
    if (from == dtype_) {
      std::memcpy(to_, rows, count * row_);
    } else if (dtype_ == Dtype::f32) {
      to_f32(from, rows, reinterpret_cast<float*>(to_), elements);
    } else {
      from_f32(dtype_, reinterpret_cast<const float*>(rows), to_, elements);
    }
    to_ += count * row_;
  }

  void add_raw(const Source& source) {
    const TokenRows rows = source.block == nullptr ? source.rows : role_.rows(source.block->data);
    if (source.picked == nullptr && rows.side_by_side(role_.channels)) {
      put(rows.dtype, rows.from(source.first).base, source.count);
      return;
    }
    for (std::uint64_t i = 0; i < source.count; ++i) {
      put(rows.dtype, rows.from(source.picked != nullptr ? source.picked[i] : source.first + i).base, 1);
    }
  }

  // By tiles of the granule, of which the wanted rows are taken.
  void add_block(const Source& source) {
    const Segment& segment = *source.block;
    const kvlab_block block =
        block_of(source.kv_head, segment, source.positions.range(source.slot, segment.tokens, workspace_.positions));
    const std::uint64_t granule = role_.codec(segment).traits().decode_granule;
    const std::uint64_t tile = tile_tokens(role_, segment);
    std::uint64_t done = 0;
    while (done < source.count) {
      const std::uint64_t wanted = source.picked != nullptr ? source.picked[done] : source.first + done;
      const std::uint64_t first = wanted / granule * granule;
      const std::uint64_t count = std::min(tile, segment.tokens - first);
      float* rows = workspace_.floats.ensure<float>(count * role_.channels);
      decode_block(role_, segment, block, first, count, rows, workspace_);
      const auto* decoded = reinterpret_cast<const std::byte*>(rows);
      const std::uint64_t step = role_.channels * sizeof(float);
      if (source.picked == nullptr) {
        const std::uint64_t now = std::min(source.count - done, first + count - wanted);
        put(Dtype::f32, decoded + (wanted - first) * step, now);
        done += now;
      } else {
        for (; done < source.count && source.picked[done] < first + count; ++done) {
          put(Dtype::f32, decoded + (source.picked[done] - first) * step, 1);
        }
      }
    }
  }

  const Role& role_;
  Dtype dtype_;
  std::uint64_t row_;
  std::byte* to_;
  Workspace& workspace_;
};

bool is_view(const Source& source) {
  return source.picked == nullptr && (source.block == nullptr || !source.block->encoded);
}

// [sequence, head, token, channel] of the first element that is not finite.
[[noreturn]] void refuse_row(const Origin& origin, const std::byte* row, std::uint64_t channels, std::uint64_t token) {
  const LayerShape& shape = *origin.shape;
  std::vector<float> values(channels);
  to_f32(shape.dtype, row, values.data(), values.size());
  const auto bad = std::find_if(values.begin(), values.end(), [](float x) { return !std::isfinite(x); });
  throw InputError(of_layer(shape.layer) + (origin.role == KVLAB_ROLE_KEYS ? "keys" : "values") + " of sequence " +
                   std::to_string(origin.sequence) + ", KV head " + std::to_string(origin.kv_head) + ", token " +
                   std::to_string(token) + ", channel " + std::to_string(bad - values.begin()) +
                   " of the tensor: " + (std::isnan(*bad) ? "NaN" : "infinity") + "; valid: finite numbers");
}

}  // namespace

TokenRows rows_of(const Role& role, std::span<const Source> sources, Dtype dtype, Buffer& into, Workspace& workspace) {
  if (sources.size() == 1 && is_view(sources.front()) && dtype == role.dtype) {
    const Source& source = sources.front();
    return source.block == nullptr ? source.rows.from(source.first) : role.rows(source.block->data).from(source.first);
  }
  std::uint64_t count = 0;
  for (const auto& source : sources) count += source.count;
  const std::uint64_t row = role.channels * size_of(dtype);
  auto* all = into.ensure<std::byte>(count * row);
  Gatherer gatherer(role, dtype, all, workspace);
  for (const auto& source : sources) gatherer.add(source);
  return {all, static_cast<std::int64_t>(row), dtype};
}

void check_rows(const Origin& origin, const TokenRows& rows, const Source& source) {
  const std::uint64_t channels = origin.shape->head_dim(origin.role);
  if (all_finite(rows, source.count, channels)) return;
  std::uint64_t t = 0;
  while (all_finite(rows.from(t), 1, channels)) ++t;
  refuse_row(origin, rows.from(t).base, channels, source.picked != nullptr ? source.picked[t] : source.first + t);
}

}  // namespace kvlab::cpu
