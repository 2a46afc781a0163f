// Attention on the bytes of a block with the kernels of kernels.hpp; where there is none for a setting, long hand.
//
// A call works on up to 128 tokens and 16 queries at a time, so that its scratch has one size. Codes of 2, 3, 5 and 6
// bits are unpacked to bytes there. Which kernel does what:
//
//                 keys (scores)                        values (accumulate)
//   per_token     dots, or group_dots                  sums, or group_sums
//   per_channel   sums over channels, of q_c * s_c     dots of the weights with each channel's row
//
// A tile for which 16-bit integers are not enough (precision.hpp) is decoded, and the host's f32 kernels take its rows.
//
// Prepared queries   f32 [queries][channels], then for per_token keys integers [queries][padded(channels)],
//                    Rounded [queries], f32 sums of the integers [queries][groups]
// An accumulator     f32 [channels], then [groups] the sums of weight * zero, which finish() adds to each channel
#pragma once

#include <kvlab/plugin.hpp>

#include "format.hpp"
#include "kernels.hpp"
#include "precision.hpp"

namespace quantize {

class Attend {
 public:
  Attend() = default;
  Attend(const Format& format, const Kernels* fast, const kvlab_host* host, double attention_scale);

  [[nodiscard]] std::uint64_t prepared_bytes(std::uint64_t queries) const;
  [[nodiscard]] std::uint64_t scratch() const;
  [[nodiscard]] std::uint64_t width() const { return format_.channels + format_.groups(); }
  void prepare(const float* queries, std::uint64_t count, void* prepared) const;
  void scores(const void* prepared, std::uint64_t queries, const kvlab::Block& block, std::uint64_t first,
              std::uint64_t count, kvlab::Rows out, kvlab::Scratch scratch) const;
  void accumulate(const float* weights, std::uint64_t queries, std::uint64_t weight_stride, const kvlab::Block& block,
                  std::uint64_t first, std::uint64_t count, float* accumulator, kvlab::Scratch scratch) const;
  void finish(const float* accumulator, std::uint64_t queries, float* rows) const;
  // f32 rows; false where there is no kernel for it. Scratch as for attention.
  bool decode(const kvlab::Block& block, std::uint64_t first, std::uint64_t count, kvlab::Rows rows,
              kvlab::Scratch scratch) const;

 private:
  static constexpr std::uint64_t tile = 128;  // tokens
  static constexpr std::uint64_t batch = 16;  // queries
  static constexpr std::uint64_t weight_stride = most_channels + 64;

  struct Prepared {  // from some query on
    float* queries;
    std::int16_t* integers;
    Rounded* rounded;
    float* group_sums;
  };
  struct Tile {  // of one block
    const kvlab::Block& block;
    std::uint64_t first;
    std::uint64_t count;
    CodeRows rows;
    const float* scales;
    const float* zeros;  // null where symmetric
    float largest;       // magnitude that it may decode to
    kvlab::Scratch scratch;
  };

  [[nodiscard]] Prepared prepared_at(void* base, std::uint64_t queries) const;
  [[nodiscard]] Prepared from(const Prepared& all, std::uint64_t query) const;
  [[nodiscard]] std::uint64_t row_stride() const { return padded(format_.channels); }
  [[nodiscard]] bool fast_scores(std::uint64_t first) const;
  [[nodiscard]] bool fast_accumulate(std::uint64_t first) const;
  [[nodiscard]] bool aligned(std::uint64_t first) const { return !format_.per_channel || first % 8 == 0; }
  [[nodiscard]] Tile tile_of(const kvlab::Block& block, std::uint64_t first, std::uint64_t count, std::uint64_t done,
                             std::uint64_t all, kvlab::Scratch scratch, bool to_decode = false) const;
  void decode_channels(const Tile& tile, kvlab::Rows rows) const;
  void score_tokens(const Tile& tile, const Prepared& prepared, std::uint64_t queries, kvlab::Rows out) const;
  // False where integers are not enough: what `out` then holds is of no use, and sums are as they were. Up to a batch.
  bool score_channels(Tile tile, const float* query, std::uint64_t queries, kvlab::Rows out) const;
  [[nodiscard]] bool enough(const Rounded& rounded, float largest) const;
  [[nodiscard]] std::uint64_t tile_scratch() const;
  // A tile's rows, decoded when they are first asked for.
  class Decoded;
  bool sum_narrow(const Tile& tile, const std::int16_t* weights, const Rounded* rounded, std::uint64_t queries,
                  kvlab::Rows out, kvlab::Scratch scratch) const;
  void add_tokens(Tile tile, const float* weights, std::uint64_t queries, std::uint64_t stride, float* sums) const;
  bool add_channels(Tile tile, const float* weights, std::uint64_t queries, std::uint64_t stride, float* sums) const;

  Format format_{};
  const Kernels* fast_ = nullptr;
  const kvlab_host* host_ = nullptr;
  float logit_factor_ = 1;  // |attention scale| sqrt(channels / 3): see enough()
  float high_ = 0;          // the largest code
  float middle_ = 0;        // of the codes
  unsigned bits_ = 8;       // as the kernels see codes: 8 or 4
};

}  // namespace quantize
