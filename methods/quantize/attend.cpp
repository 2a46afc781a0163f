#include "attend.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "attend_reference.hpp"

namespace quantize {

using kvlab::Scratch;

Attend::Attend(const Format& format, const Kernels* fast, const kvlab_host* host, double attention_scale)
    : format_(format),
      fast_(fast),
      host_(host),
      logit_factor_(
          static_cast<float>(std::fabs(attention_scale) * std::sqrt(static_cast<double>(format.channels) / 3))),
      high_(static_cast<float>(format.symmetric ? (1 << (format.bits - 1)) - 1 : (1 << format.bits) - 1)),
      middle_(format.symmetric ? 0 : high_ / 2),
      bits_(format.bits == 4 ? 4 : 8) {}

// Rounding is off by up to e, evenly: e / sqrt(3) in the mean square. n of them times magnitudes up to m add up to
// e m sqrt(n / 3), or less.
bool Attend::enough(const Rounded& rounded, float largest) const {
  return rounded.error * largest * logit_factor_ <= most_logit_error;  // not for NaN
}

// ---- prepared queries ----------------------------------------------------------------------------------------------

Attend::Prepared Attend::prepared_at(void* base, std::uint64_t queries) const {
  Scratch at(base);
  Prepared p{};
  p.queries = at.take<float>(queries * format_.channels).data();
  p.integers = at.take<std::int16_t>(queries * row_stride()).data();
  p.rounded = at.take<Rounded>(queries).data();
  p.group_sums = at.take<float>(queries * format_.groups()).data();
  return p;
}

Attend::Prepared Attend::from(const Prepared& all, std::uint64_t query) const {
  return {all.queries + query * format_.channels, all.integers + query * row_stride(), all.rounded + query,
          all.group_sums + query * format_.groups()};
}

std::uint64_t Attend::prepared_bytes(std::uint64_t queries) const {
  return Scratch::size<float>(queries * format_.channels) + Scratch::size<std::int16_t>(queries * row_stride()) +
         Scratch::size<Rounded>(queries) + Scratch::size<float>(queries * format_.groups());
}

void Attend::prepare(const float* queries, std::uint64_t count, void* prepared) const {
  const Prepared p = prepared_at(prepared, count);
  std::copy_n(queries, count * format_.channels, p.queries);
  if (fast_ == nullptr || format_.per_channel) return;
  const std::int32_t largest_code = format_.symmetric ? 1 << (bits_ - 1) : (1 << bits_) - 1;
  for (std::uint64_t q = 0; q < count; ++q) {
    p.rounded[q] =
        fast_->round_query(queries + q * format_.channels, format_.channels, bits_, largest_code, format_.group,
                           p.integers + q * row_stride(), p.group_sums + q * format_.groups());
  }
}

// ---- tiles ---------------------------------------------------------------------------------------------------------

bool Attend::fast_scores(std::uint64_t first) const {
  if (fast_ == nullptr || !aligned(first)) return false;
  return format_.per_channel || format_.groups() == 1 || format_.group * bits_ % 32 == 0;
}

bool Attend::fast_accumulate(std::uint64_t first) const {
  if (fast_ == nullptr || !aligned(first)) return false;
  return format_.per_channel || format_.groups() == 1 || format_.group * bits_ % 128 == 0;
}

namespace {

constexpr std::uint64_t register_slack = 64;

}  // namespace

std::uint64_t Attend::tile_scratch() const {
  const std::uint64_t scales = std::max(tile * format_.groups(), format_.channels) + 16;
  return Scratch::size<std::uint8_t>(std::max(tile * (format_.channels + 8), format_.channels * (tile + 8)) +
                                     register_slack) +  // unpacked codes
         2 * Scratch::size<float>(scales) +             // scales, zeros
         Scratch::size<std::int16_t>(batch * (tile + 2) * (format_.groups() + 1) + weight_stride * batch) +  // weights
         Scratch::size<std::int16_t>(batch * weight_stride) +  // the same, paired
         Scratch::size<Rounded>(batch * std::max<std::uint64_t>(format_.groups(), 8)) +
         Scratch::size<float>(batch * (most_channels + 64)) + Scratch::size<float>(format_.channels);
}

// A tile, and the same tile decoded.
std::uint64_t Attend::scratch() const { return 2 * tile_scratch() + Scratch::size<float>(tile * format_.channels); }

Attend::Tile Attend::tile_of(const kvlab::Block& block, std::uint64_t first, std::uint64_t count, std::uint64_t done,
                             std::uint64_t all, Scratch scratch, bool to_decode) const {
  const std::uint64_t row_bytes = format_.row_bytes(block.tokens);
  const bool channels = format_.per_channel;
  CodeRows rows{};
  rows.base = block.bytes + (channels ? first * format_.bits / 8 : first * row_bytes);
  rows.row_bytes = row_bytes;
  rows.rows = channels ? format_.channels : count;
  rows.columns = channels ? count : format_.channels;
  rows.bits = bits_;
  rows.is_signed = format_.symmetric;
  const auto unpacked = scratch.take<std::uint8_t>(
      std::max(tile * (format_.channels + 8), format_.channels * (tile + 8)) + register_slack);
  if (format_.bits != bits_ && !to_decode) {
    const std::uint64_t bytes = (rows.columns + 7) / 8 * 8;
    for (std::uint64_t r = 0; r < rows.rows; ++r) {
      fast_->unpack(rows.base + r * row_bytes, format_.bits, format_.symmetric, rows.columns,
                    unpacked.data() + r * bytes);
    }
    rows.base = unpacked.data();
    rows.row_bytes = bytes;
  }
  if (block.ahead != nullptr) {
    rows.ahead = block.ahead + block.ahead_size * done / all;
    rows.ahead_size = block.ahead_size * count / all;
    // The kernels fetch the codes as they go; scales and zeros, behind them, are read first.
    for (std::uint64_t at = rows.rows * rows.row_bytes; at < rows.ahead_size; at += 64) {
      __builtin_prefetch(rows.ahead + at, 0, 2);
    }
  }
  const std::uint64_t most = std::max(tile * format_.groups(), format_.channels) + 16;
  const auto scales = scratch.take<float>(most);
  const auto zeros = scratch.take<float>(most);
  const std::uint64_t wanted = channels ? format_.channels : count * format_.groups();
  const std::uint64_t skipped = channels ? 0 : first * format_.groups();
  const std::uint8_t* stored = block.bytes + format_.code_bytes(block.tokens) + skipped * format_.scale.size();
  const auto dtype = static_cast<unsigned>(format_.scale.dtype);
  fast_->load_scales(stored, dtype, wanted, scales.data());
  if (!format_.symmetric) {
    fast_->load_scales(stored + format_.one_scale_array(block.tokens), dtype, wanted, zeros.data());
  }
  const float* offsets = format_.symmetric ? nullptr : zeros.data();
  const float largest = to_decode ? 0 : fast_->largest_decoded(scales.data(), offsets, wanted, high_);
  return {block, first, count, rows, scales.data(), offsets, largest, scratch};
}

// ---- where integers are not enough ----------------------------------------------------------------------------------

class Attend::Decoded {
 public:
  // `scratch`: the call's.
  Decoded(const Attend& attend, const kvlab::Block& block, std::uint64_t first, std::uint64_t count, Scratch scratch)
      : attend_(attend), block_(block), first_(first), count_(count), scratch_(scratch) {
    scratch_.take<std::uint8_t>(attend.tile_scratch());  // the tile is still in use
  }

  const kvlab_rows* rows() {
    if (rows_.base == nullptr) {
      const std::uint64_t channels = attend_.format_.channels;
      const kvlab::Rows to{scratch_.take<float>(count_ * channels).data(), channels};
      if (!attend_.decode(block_, first_, count_, to, scratch_)) {
        reference_decode(attend_.format_, block_, first_, count_, to);
      }
      rows_ = {to.base, KVLAB_F32, 0, channels, count_, channels, nullptr, 0};
    }
    return &rows_;
  }

 private:
  const Attend& attend_;
  const kvlab::Block& block_;
  std::uint64_t first_;
  std::uint64_t count_;
  Scratch scratch_;
  kvlab_rows rows_{};
};

// ---- scores --------------------------------------------------------------------------------------------------------

void Attend::scores(const void* prepared, std::uint64_t queries, const kvlab::Block& block, std::uint64_t first,
                    std::uint64_t count, kvlab::Rows out, Scratch scratch) const {
  const Prepared p = prepared_at(const_cast<void*>(prepared), queries);
  if (!fast_scores(first)) {
    reference_scores(format_, p.queries, queries, block, first, count, out,
                     scratch.take<float>(format_.channels).data());
    return;
  }
  for (std::uint64_t done = 0; done < count; done += tile) {
    const Tile part = tile_of(block, first + done, std::min(tile, count - done), done, count, scratch);
    Decoded decoded(*this, block, part.first, part.count, scratch);
    const auto fits = [&](std::uint64_t q) { return ordinary(part.largest) && enough(p.rounded[q], part.largest); };
    for (std::uint64_t q = 0, end = 0; q < queries; q = end) {
      const kvlab::Rows to{out[q] + done, out.stride};
      const float* query = p.queries + q * format_.channels;
      bool scored = false;
      if (format_.per_channel) {
        end = std::min(q + batch, queries);
        scored = ordinary(part.largest) && score_channels(part, query, end - q, to);
      } else {
        scored = fits(q);
        for (end = q + 1; end < queries && fits(end) == scored;) ++end;
        if (scored) score_tokens(part, from(p, q), end - q, to);
      }
      if (!scored) host_->dots(decoded.rows(), query, format_.channels, end - q, to.base, to.stride);
    }
  }
}

void Attend::score_tokens(const Tile& part, const Prepared& p, std::uint64_t queries, kvlab::Rows out) const {
  if (format_.groups() == 1) {
    fast_->dots(part.rows, p.integers, row_stride(), p.rounded, queries, part.scales, part.zeros, out.base, out.stride);
  } else {
    fast_->group_dots(part.rows, format_.group, format_.groups(), p.integers, row_stride(), p.rounded, p.group_sums,
                      queries, part.scales, part.zeros, out.base, out.stride);
  }
}

// Codes lie around their middle: what rounding takes from the sum of the weights, here q_c * s_c, is added back times
// that, which leaves half of the error.
bool Attend::score_channels(Tile part, const float* query, std::uint64_t queries, kvlab::Rows out) const {
  const auto weights = part.scratch.take<std::int16_t>(weight_stride * batch);
  std::array<Rounded, batch> rounded{};
  // Rows are summed most_rows at a time, for their sums to stay in 32 bits.
  for (std::uint64_t c = 0; c < format_.channels; c += most_rows) {
    const std::uint64_t rows = std::min(most_rows, format_.channels - c);
    for (std::uint64_t q = 0; q < queries; ++q) {
      const float* row = query + q * format_.channels + c;
      rounded[q] =
          fast_->round_weights(row, part.scales + c, rows, !format_.symmetric, weights.data() + q * weight_stride);
      if (!enough(rounded[q], high_ - middle_)) return false;
      float zero = middle_ * rounded[q].rest;
      if (part.zeros != nullptr) zero += fast_->dot(row, part.zeros + c, rows);
      float* to = out[q];
      for (std::uint64_t t = 0; t < part.count; ++t) to[t] = c == 0 ? zero : to[t] + zero;
    }
    Tile some = part;
    some.rows.base += c * part.rows.row_bytes;
    some.rows.rows = rows;
    if (!sum_narrow(some, weights.data(), rounded.data(), queries, out, part.scratch)) {
      fast_->sums(some.rows, weights.data(), weight_stride, rounded.data(), queries, out.base, out.stride);
    }
    part.rows.ahead_size = 0;
  }
  return true;
}

// Rows shorter than a register, side by side in it: a register of them is a row of `side` groups.
bool Attend::sum_narrow(const Tile& part, const std::int16_t* weights, const Rounded* rounded, std::uint64_t queries,
                        kvlab::Rows out, Scratch scratch) const {
  const CodeRows& rows = part.rows;
  const bool whole = rows.row_bytes * 8 == rows.columns * rows.bits && (rows.row_bytes == 16 || rows.row_bytes == 32);
  if (!whole || rows.row_bytes >= fast_->register_bytes) return false;
  const std::uint64_t side = fast_->register_bytes / rows.row_bytes;
  if (rows.rows % side != 0) return false;
  const auto paired = scratch.take<std::int16_t>(batch * weight_stride);
  const auto each = scratch.take<Rounded>(batch * 8);
  const auto sums = scratch.take<float>(batch * (most_channels + 64));
  const std::uint64_t columns = side * rows.columns;
  for (std::uint64_t q = 0; q < queries; ++q) {
    std::array<float, 8> totals{};
    fast_->pair_rows(weights + q * weight_stride, rows.rows, side, paired.data() + q * weight_stride, totals.data());
    for (std::uint64_t s = 0; s < side; ++s) each[q * side + s] = {rounded[q].factor, totals[s]};
    std::fill_n(sums.data() + q * columns, columns, 0.0F);
  }
  CodeRows wide = rows;
  wide.rows = rows.rows / side;
  wide.row_bytes = fast_->register_bytes;
  wide.columns = columns;
  fast_->group_sums(wide, rows.columns, side, paired.data(), weight_stride, each.data(), queries, sums.data(), columns);
  for (std::uint64_t q = 0; q < queries; ++q) {
    for (std::uint64_t s = 0; s < side; ++s) {
      const float* from = sums.data() + q * columns + s * rows.columns;
      for (std::uint64_t t = 0; t < rows.columns; ++t) out[q][t] += from[t];
    }
  }
  return true;
}

// ---- values --------------------------------------------------------------------------------------------------------

void Attend::accumulate(const float* weights, std::uint64_t queries, std::uint64_t stride, const kvlab::Block& block,
                        std::uint64_t first, std::uint64_t count, float* accumulator, Scratch scratch) const {
  if (!fast_accumulate(first)) {
    reference_accumulate(format_, weights, queries, stride, block, first, count, accumulator, width(),
                         scratch.take<float>(format_.channels).data());
    return;
  }
  for (std::uint64_t done = 0; done < count; done += tile) {
    Tile part = tile_of(block, first + done, std::min(tile, count - done), done, count, scratch);
    Decoded decoded(*this, block, part.first, part.count, scratch);
    for (std::uint64_t q = 0; q < queries; q += batch) {
      const std::uint64_t now = std::min(batch, queries - q);
      const float* some = weights + q * stride + done;
      float* to = accumulator + q * width();
      bool added = ordinary(part.largest);
      if (added && format_.per_channel) {
        added = add_channels(part, some, now, stride, to);
      } else if (added) {
        add_tokens(part, some, now, stride, to);
      }
      if (!added) host_->sums(decoded.rows(), some, stride, now, to, width());
      part.rows.ahead_size = 0;
    }
  }
}

void Attend::add_tokens(Tile part, const float* weights, std::uint64_t queries, std::uint64_t stride,
                        float* sums) const {
  const std::uint64_t groups = format_.groups();
  const std::uint64_t own_stride = groups == 1 ? weight_stride : (tile + 2) * groups + 32;
  const auto integers = part.scratch.take<std::int16_t>(batch * (tile + 2) * (groups + 1) + weight_stride * batch);
  const auto rounded = part.scratch.take<Rounded>(batch * std::max<std::uint64_t>(groups, 8));
  for (std::uint64_t q = 0; q < queries; ++q) {
    const float* w = weights + q * stride;
    std::int16_t* to = integers.data() + q * own_stride;
    if (groups == 1) {
      rounded[q] = fast_->round_weights(w, part.scales, part.count, !format_.symmetric, to);
      if (part.zeros != nullptr) {
        sums[q * width() + format_.channels] += fast_->dot(w, part.zeros, part.count) + middle_ * rounded[q].rest;
      }
      continue;
    }
    fast_->round_group_weights(w, part.scales, part.count, groups, !format_.symmetric, to, rounded.data() + q * groups);
    if (part.zeros != nullptr) {
      float* to_groups = sums + q * width() + format_.channels;
      fast_->group_dot(w, part.zeros, part.count, groups, to_groups);
      for (std::uint64_t g = 0; g < groups; ++g) to_groups[g] += middle_ * rounded[q * groups + g].rest;
    }
  }
  if (groups == 1) {
    fast_->sums(part.rows, integers.data(), own_stride, rounded.data(), queries, sums, width());
  } else {
    fast_->group_sums(part.rows, format_.group, groups, integers.data(), own_stride, rounded.data(), queries, sums,
                      width());
  }
}

bool Attend::add_channels(Tile part, const float* weights, std::uint64_t queries, std::uint64_t stride,
                          float* sums) const {
  const auto integers = part.scratch.take<std::int16_t>(batch * weight_stride);
  const auto out = part.scratch.take<float>(batch * (most_channels + 64));
  std::array<Rounded, batch> rounded{};
  const std::int32_t largest_code = format_.symmetric ? 1 << (bits_ - 1) : (1 << bits_) - 1;
  for (std::uint64_t q = 0; q < queries; ++q) {
    rounded[q] = fast_->round_query(weights + q * stride, part.count, bits_, largest_code, part.count,
                                    integers.data() + q * weight_stride, nullptr);
  }
  fast_->dots(part.rows, integers.data(), weight_stride, rounded.data(), queries, part.scales, part.zeros, out.data(),
              most_channels + 64);
  // Of rounded weights as of rounded queries: see enough().
  const float factor = part.largest * std::sqrt(static_cast<float>(part.count * format_.channels) / 3);
  for (std::uint64_t q = 0; q < queries; ++q) {
    const float* sum = out.data() + q * (most_channels + 64);
    const float norm = std::sqrt(fast_->dot(sum, sum, format_.channels));
    if (rounded[q].factor > 0 && !(rounded[q].error * factor <= most_sum_error * norm)) return false;
  }
  for (std::uint64_t q = 0; q < queries; ++q) {
    for (std::uint64_t c = 0; c < format_.channels; ++c) sums[q * width() + c] += out[q * (most_channels + 64) + c];
  }
  return true;
}

void Attend::finish(const float* accumulator, std::uint64_t queries, float* rows) const {
  for (std::uint64_t q = 0; q < queries; ++q) {
    const float* from = accumulator + q * width();
    for_groups(format_, [&](std::uint64_t g, std::uint64_t begin, std::uint64_t end) {
      for (std::uint64_t c = begin; c < end; ++c) {
        rows[q * format_.channels + c] = from[c] + from[format_.channels + g];
      }
    });
  }
}

}  // namespace quantize
