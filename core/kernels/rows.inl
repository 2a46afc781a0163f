// Attention over rows of bf16, f16 or f32: dots (q . row) and sums (weighted sum of rows), f32 throughout. Included by
// one file per instruction set.
//
// Rows are read two registers at a time, as even and odd channels: bf16 then costs a shift and a mask. Queries are put
// into that order once a call; sums are put back at its end. Up to 4 queries share each pass over the rows, and what
// `ahead` says is prefetched as the pass goes.
//
//   dots   a micro-tile of floats / H rows x H queries keeps one accumulator a pair: 16 of AVX-512's, 8 of AVX2's,
//          and one tree of shuffles sums all of them across their elements
//   sums   H queries x 2 or 4 registers of channels are accumulators over all rows
//
// Cycles, AVX-512 at one fused multiply-add per cycle, 4 queries, 128 channels of bf16: 32 + 32 per token of 512 bytes.

namespace {

constexpr std::uint64_t pair = 2 * simd::floats;
constexpr std::uint64_t most_channels = 512;

template <kvlab_dtype D>
KVLAB_SIMD const void* row_of(const kvlab_rows& rows, std::uint64_t token) {
  constexpr std::uint64_t element = D == KVLAB_F32 ? 4 : 2;
  return static_cast<const std::uint8_t*>(rows.base) + token * rows.stride * element;
}

// Fetches [first, last) bytes of `ahead` into the second-level cache.
KVLAB_SIMD void prefetch(const kvlab_rows& rows, std::uint64_t first, std::uint64_t last) {
  if (last > rows.ahead_size) last = rows.ahead_size;
  for (; first < last; first += 64) _mm_prefetch(static_cast<const char*>(rows.ahead) + first, _MM_HINT_T1);
}

// ---- dots ----------------------------------------------------------------------------------------------------------

template <kvlab_dtype D, std::uint64_t H>
void dots_of(const kvlab_rows& rows, const float* arranged, float* out, std::uint64_t out_stride) {
  constexpr std::uint64_t height = simd::floats / H;  // rows of a micro-tile
  const std::uint64_t channels = rows.channels;
  const std::uint64_t whole = channels / pair * pair;
  const std::uint64_t padded = (channels + pair - 1) / pair * pair;
  const std::uint64_t row_bytes = channels * (D == KVLAB_F32 ? 4 : 2);
  for (std::uint64_t t0 = 0; t0 < rows.tokens; t0 += height) {
    prefetch(rows, t0 * row_bytes, (t0 + height) * row_bytes);
    const void* row[height];
#pragma GCC unroll 16
    for (std::uint64_t t = 0; t < height; ++t) {
      const std::uint64_t last = rows.tokens - 1;
      row[t] = row_of<D>(rows, t0 + t < last ? t0 + t : last);
    }
    simd::F sums[simd::floats];
#pragma GCC unroll 16
    for (int i = 0; i < simd::floats; ++i) sums[i] = simd::zero();
    const auto multiply = [&](const float* q, std::uint64_t t, simd::F even, simd::F odd)
                              __attribute__((always_inline)) {
#pragma GCC unroll 4
                                for (std::uint64_t h = 0; h < H; ++h) {
                                  simd::F& s = sums[h * height + t];
                                  s = simd::fma(even, simd::load(q + h * padded), s);
                                  s = simd::fma(odd, simd::load(q + h * padded + simd::floats), s);
                                }
                              };
    for (std::uint64_t c = 0; c < whole; c += pair) {
#pragma GCC unroll 16
      for (std::uint64_t t = 0; t < height; ++t) {
        simd::F even;
        simd::F odd;
        simd::load_pair<D>(row[t], c, even, odd);
        multiply(arranged + c, t, even, odd);
      }
    }
    if (whole < channels) {
#pragma GCC unroll 16
      for (std::uint64_t t = 0; t < height; ++t) {
        simd::F even;
        simd::F odd;
        simd::load_pair<D>(row[t], whole, static_cast<int>(channels - whole), even, odd);
        multiply(arranged + whole, t, even, odd);
      }
    }
    alignas(64) float totals[simd::floats];
    simd::store(totals, simd::sum_each(sums));
    const std::uint64_t left = rows.tokens - t0;
    if (left >= height) {
#pragma GCC unroll 4
      for (std::uint64_t h = 0; h < H; ++h)
        __builtin_memcpy(out + h * out_stride + t0, totals + h * height, height * sizeof(float));
    } else {
      for (std::uint64_t h = 0; h < H; ++h) {
        for (std::uint64_t t = 0; t < left; ++t) out[h * out_stride + t0 + t] = totals[h * height + t];
      }
    }
  }
}

// Queries in even and odd halves a register pair, padded with zeros.
KVLAB_SIMD void arrange(const float* query, std::uint64_t channels, float* out) {
  for (std::uint64_t c = 0; c < channels; c += pair) {
    const int left = static_cast<int>(channels - c);
    simd::F even;
    simd::F odd;
    simd::split(simd::load_first(query + c, left), simd::load_first(query + c + simd::floats, left - simd::floats),
                even, odd);
    simd::store(out + c, even);
    simd::store(out + c + simd::floats, odd);
  }
}

template <kvlab_dtype D>
void dots_any(const kvlab_rows& rows, const float* queries, std::uint64_t query_stride, std::uint64_t count, float* out,
              std::uint64_t out_stride) {
  alignas(64) float arranged[4 * most_channels];
  const std::uint64_t padded = (rows.channels + pair - 1) / pair * pair;
  for (std::uint64_t q = 0; q < count;) {
    const std::uint64_t left = count - q;
    const std::uint64_t now = left >= 4 ? 4 : left >= 2 ? 2 : 1;
    for (std::uint64_t i = 0; i < now; ++i)
      arrange(queries + (q + i) * query_stride, rows.channels, arranged + i * padded);
    float* to = out + q * out_stride;
    if (now == 4) {
      dots_of<D, 4>(rows, arranged, to, out_stride);
    } else if (now == 2) {
      dots_of<D, 2>(rows, arranged, to, out_stride);
    } else {
      dots_of<D, 1>(rows, arranged, to, out_stride);
    }
    q += now;
  }
}

void dots(const kvlab_rows* rows, const float* queries, std::uint64_t query_stride, std::uint64_t count, float* out,
          std::uint64_t out_stride) {
  if (rows->tokens == 0) return;
  if (rows->dtype == KVLAB_F32) {
    dots_any<KVLAB_F32>(*rows, queries, query_stride, count, out, out_stride);
  } else if (rows->dtype == KVLAB_BF16) {
    dots_any<KVLAB_BF16>(*rows, queries, query_stride, count, out, out_stride);
  } else {
    dots_any<KVLAB_F16>(*rows, queries, query_stride, count, out, out_stride);
  }
}

// ---- sums ----------------------------------------------------------------------------------------------------------

// Channels [c, c + P pairs), of which `count` exist where Masked.
template <kvlab_dtype D, std::uint64_t H, std::uint64_t P, bool Masked>
KVLAB_SIMD void sums_of(const kvlab_rows& rows, std::uint64_t c, int count, const float* weights,
                        std::uint64_t weight_stride, float* sums, std::uint64_t sum_stride) {
  simd::F total[H][2 * P];
#pragma GCC unroll 4
  for (std::uint64_t h = 0; h < H; ++h) {
#pragma GCC unroll 4
    for (std::uint64_t p = 0; p < 2 * P; ++p) total[h][p] = simd::zero();
  }
  for (std::uint64_t t = 0; t < rows.tokens; ++t) {
    const void* row = row_of<D>(rows, t);
    simd::F x[2 * P];
#pragma GCC unroll 4
    for (std::uint64_t p = 0; p < P; ++p) {
      if constexpr (Masked) {
        simd::load_pair<D>(row, c, count, x[2 * p], x[2 * p + 1]);
      } else {
        simd::load_pair<D>(row, c + p * pair, x[2 * p], x[2 * p + 1]);
      }
    }
    if (c == 0) {
      const std::uint64_t row_bytes = rows.channels * (D == KVLAB_F32 ? 4 : 2);
      prefetch(rows, t * row_bytes, (t + 1) * row_bytes);
    }
#pragma GCC unroll 4
    for (std::uint64_t h = 0; h < H; ++h) {
      const simd::F w = simd::set1(weights[h * weight_stride + t]);
#pragma GCC unroll 4
      for (std::uint64_t p = 0; p < 2 * P; ++p) total[h][p] = simd::fma(x[p], w, total[h][p]);
    }
  }
#pragma GCC unroll 4
  for (std::uint64_t h = 0; h < H; ++h) {
#pragma GCC unroll 4
    for (std::uint64_t p = 0; p < P; ++p) {
      simd::F a;
      simd::F b;
      simd::join(total[h][2 * p], total[h][2 * p + 1], a, b);
      float* to = sums + h * sum_stride + c + p * pair;
      if constexpr (Masked) {
        simd::store_first(to, simd::add(simd::load_first(to, count), a), count);
        simd::store_first(to + simd::floats, simd::add(simd::load_first(to + simd::floats, count - simd::floats), b),
                          count - simd::floats);
      } else {
        simd::store(to, simd::add(simd::load(to), a));
        simd::store(to + simd::floats, simd::add(simd::load(to + simd::floats), b));
      }
    }
  }
}

template <kvlab_dtype D, std::uint64_t H>
void sums_over_channels(const kvlab_rows& rows, const float* weights, std::uint64_t weight_stride, float* sums,
                        std::uint64_t sum_stride) {
  constexpr std::uint64_t pairs = simd::floats == 16 ? 2 : 1;  // H * 2 * pairs accumulators: half of the registers
  std::uint64_t c = 0;
  for (; c + pairs * pair <= rows.channels; c += pairs * pair) {
    sums_of<D, H, pairs, false>(rows, c, 0, weights, weight_stride, sums, sum_stride);
  }
  for (; c + pair <= rows.channels; c += pair) {
    sums_of<D, H, 1, false>(rows, c, 0, weights, weight_stride, sums, sum_stride);
  }
  if (c < rows.channels) {
    sums_of<D, H, 1, true>(rows, c, static_cast<int>(rows.channels - c), weights, weight_stride, sums, sum_stride);
  }
}

template <kvlab_dtype D>
void sums_any(const kvlab_rows& rows, const float* weights, std::uint64_t weight_stride, std::uint64_t count,
              float* sums, std::uint64_t sum_stride) {
  for (std::uint64_t q = 0; q < count;) {
    const std::uint64_t left = count - q;
    const float* w = weights + q * weight_stride;
    float* s = sums + q * sum_stride;
    if (left >= 4) {
      sums_over_channels<D, 4>(rows, w, weight_stride, s, sum_stride);
      q += 4;
    } else if (left >= 2) {
      sums_over_channels<D, 2>(rows, w, weight_stride, s, sum_stride);
      q += 2;
    } else {
      sums_over_channels<D, 1>(rows, w, weight_stride, s, sum_stride);
      q += 1;
    }
  }
}

void sums(const kvlab_rows* rows, const float* weights, std::uint64_t weight_stride, std::uint64_t count, float* sums,
          std::uint64_t sum_stride) {
  if (rows->tokens == 0) return;
  if (rows->dtype == KVLAB_F32) {
    sums_any<KVLAB_F32>(*rows, weights, weight_stride, count, sums, sum_stride);
  } else if (rows->dtype == KVLAB_BF16) {
    sums_any<KVLAB_BF16>(*rows, weights, weight_stride, count, sums, sum_stride);
  } else {
    sums_any<KVLAB_F16>(*rows, weights, weight_stride, count, sums, sum_stride);
  }
}

}  // namespace
