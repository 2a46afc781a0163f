// One result per row of codes; included by kernels.inl.
//
// dots. A step of codes becomes registers of 16-bit words, multiplied pairwise with the query's:
//   8 bits   bytes/2 codes, one register, in their order
//   4 bits   2 * bytes codes, word i holds codes 4i .. 4i+3; register j = code j of each word, so that the query lies
//            permuted: register j of a step holds q[4i + j]
// A micro-tile of floats / H rows x H queries keeps an accumulator a pair, and one tree of shuffles sums them all.

namespace {

// sums[h * T + t] += codes of row t in this step times the step's words of query h.
template <unsigned Bits, bool Signed, int H, int T>
KVLAB_SIMD void dot_step(const std::uint8_t* const* row, std::uint64_t step, const std::int16_t* x,
                         std::uint64_t x_stride, I* sums) {
  const std::int16_t* from = x + step * step_codes<Bits>;
#pragma GCC unroll 16
  for (int t = 0; t < T; ++t) {
    const std::uint8_t* p = row[t] + step * step_bytes<Bits>;
    if constexpr (Bits == 8) {
      const I codes = Signed ? simd::widen_signed(p) : simd::widen_unsigned(p);
#pragma GCC unroll 4
      for (int h = 0; h < H; ++h) {
        I& sum = sums[h * T + t];
        sum = simd::dot_words(sum, codes, simd::iload(from + static_cast<std::uint64_t>(h) * x_stride));
      }
    } else {
      constexpr std::uint16_t bias = Signed ? 0x8888 : 0;
      const I packed = simd::ixor(simd::iload(p), simd::iset1_16(static_cast<std::int16_t>(bias)));
      const I low = simd::iset1_16(15);
      const I codes[4] = {simd::iand(packed, low), simd::iand(simd::shift_right_16<4>(packed), low),
                          simd::iand(simd::shift_right_16<8>(packed), low), simd::shift_right_16<12>(packed)};
#pragma GCC unroll 4
      for (int h = 0; h < H; ++h) {
        const std::int16_t* q = from + static_cast<std::uint64_t>(h) * x_stride;
        I& sum = sums[h * T + t];
#pragma GCC unroll 4
        for (std::uint64_t j = 0; j < 4; ++j) sum = simd::dot_words(sum, codes[j], simd::iload(q + j * words));
      }
    }
  }
}

// Pointers to the T rows from r on; the last one again where there are no more.
template <int T>
KVLAB_SIMD void rows_from(const CodeRows& rows, std::uint64_t r, const std::uint8_t** row) {
#pragma GCC unroll 16
  for (int t = 0; t < T; ++t) {
    row[t] = rows.base + least(r + static_cast<std::uint64_t>(t), rows.rows - 1) * rows.row_bytes;
  }
}

// [H][T] results, of which rows r .. exist.
template <int H, int T>
KVLAB_SIMD void put_results(const float* results, const CodeRows& rows, std::uint64_t r, float* out,
                            std::uint64_t out_stride) {
  const std::uint64_t left = rows.rows - r;
#pragma GCC unroll 4
  for (int h = 0; h < H; ++h) {
    float* to = out + static_cast<std::uint64_t>(h) * out_stride + r;
    if (left >= T) {
      __builtin_memcpy(to, results + h * T, T * sizeof(float));
    } else {
      for (std::uint64_t t = 0; t < left; ++t) to[t] = results[h * T + static_cast<int>(t)];
    }
  }
}

template <unsigned Bits, bool Signed, int H>
void dots_of(const CodeRows& rows, const std::int16_t* x, std::uint64_t x_stride, const Rounded* rounded,
             const float* scales, const float* zeros, float* out, std::uint64_t out_stride) {
  constexpr int height = simd::floats / H;
  const std::uint64_t steps = (rows.columns + step_codes<Bits> - 1) / step_codes<Bits>;
  for (std::uint64_t r = 0; r < rows.rows; r += height) {
    prefetch(rows, r * rows.row_bytes, (r + height) * rows.row_bytes);
    const std::uint8_t* row[height];
    rows_from<height>(rows, r, row);
    I sums[simd::floats];
#pragma GCC unroll 16
    for (int i = 0; i < simd::floats; ++i) sums[i] = simd::izero();
    for (std::uint64_t s = 0; s < steps; ++s) dot_step<Bits, Signed, H, height>(row, s, x, x_stride, sums);
    alignas(64) float totals[simd::floats];
    simd::store(totals, simd::to_float(simd::sum_each(sums)));
    put_results<H, height>(totals, rows, r, out, out_stride);
  }
  constexpr float bias = Bits == 4 && Signed ? 8 : 0;
  for (int h = 0; h < H; ++h) {
    const F factor = simd::set1(rounded[h].factor);
    const F sum = simd::set1(rounded[h].sum);
    float* to = out + static_cast<std::uint64_t>(h) * out_stride;
    for (std::uint64_t r = 0; r < rows.rows; r += simd::floats) {
      const int now = static_cast<int>(least(rows.rows - r, simd::floats));
      const F s = simd::load_first(scales + r, now);
      F z = simd::mul(s, simd::set1(-bias));
      if (zeros != nullptr) z = simd::add(z, simd::load_first(zeros + r, now));
      const F y = simd::fma(simd::load_first(to + r, now), s, simd::mul(z, sum));
      simd::store_first(to + r, simd::mul(y, factor), now);
    }
  }
}

// How groups lie in the 32-bit lanes of the registers of one step.
template <unsigned Bits>
struct LaneGroups {
  alignas(64) std::int32_t indexes[simd::floats];
  std::uint64_t run;   // steps with the same groups in the same lanes: they share one scaling
  std::uint64_t base;  // first group of the step
  bool uniform;        // all lanes are of that group

  KVLAB_SIMD LaneGroups at(std::uint64_t step, std::uint64_t group, std::uint64_t groups) {
    constexpr std::uint64_t lane_codes = step_codes<Bits> / simd::floats;
    LaneGroups made;
    made.uniform = group % step_codes<Bits> == 0;
    made.run = made.uniform ? group / step_codes<Bits> : 1;
    made.base = step * step_codes<Bits> / group;
    for (std::uint64_t l = 0; l < simd::floats; ++l) {
      const std::uint64_t g = least((step * step_codes<Bits> + l * lane_codes) / group, groups - 1);
      made.indexes[l] = static_cast<std::int32_t>(g - made.base);
    }
    return made;
  }
};

template <unsigned Bits, bool Signed, int H>
void group_dots_of(const CodeRows& rows, std::uint64_t group, std::uint64_t groups, const std::int16_t* x,
                   std::uint64_t x_stride, const Rounded* rounded, const float* group_sums, const float* scales,
                   const float* zeros, float* out, std::uint64_t out_stride) {
  constexpr int height = simd::floats / H;
  constexpr std::uint64_t most_steps = quantize::most_channels / step_codes<Bits>;
  constexpr std::uint64_t lane_codes = step_codes<Bits> / simd::floats;
  const std::uint64_t steps = (rows.columns + step_codes<Bits> - 1) / step_codes<Bits>;
  LaneGroups<Bits> lanes[most_steps];
  // Where a group begins, the sum of the query in it: zeros meet it there.
  alignas(64) float zero_sums[H][most_steps][simd::floats];
  __builtin_memset(zero_sums, 0, sizeof zero_sums);
  for (std::uint64_t s = 0; s < steps; ++s) lanes[s] = LaneGroups<Bits>::at(s, group, groups);
  for (std::uint64_t g = 0; g < groups; ++g) {
    const std::uint64_t lane = g * group / lane_codes;
    for (int h = 0; h < H; ++h) {
      zero_sums[h][lane / simd::floats][lane % simd::floats] = group_sums[static_cast<std::uint64_t>(h) * groups + g];
    }
  }
  constexpr float bias = Bits == 4 && Signed ? 8 : 0;
  constexpr bool has_offsets = !Signed || bias != 0;
  for (std::uint64_t r = 0; r < rows.rows; r += height) {
    prefetch(rows, r * rows.row_bytes, (r + height) * rows.row_bytes);
    const std::uint8_t* row[height];
    rows_from<height>(rows, r, row);
    F totals[simd::floats];
#pragma GCC unroll 16
    for (int i = 0; i < simd::floats; ++i) totals[i] = simd::zero();
    for (std::uint64_t s = 0; s < steps;) {
      const LaneGroups<Bits>& lane = lanes[s];
      const std::uint64_t first = s;
      I sums[simd::floats];
#pragma GCC unroll 16
      for (int i = 0; i < simd::floats; ++i) sums[i] = simd::izero();
      for (const std::uint64_t end = least(s + lane.run, steps); s < end; ++s) {
        dot_step<Bits, Signed, H, height>(row, s, x, x_stride, sums);
      }
      const I indexes = simd::iload(lane.indexes);
#pragma GCC unroll 16
      for (int t = 0; t < height; ++t) {
        const std::uint64_t at = least(r + static_cast<std::uint64_t>(t), rows.rows - 1) * groups + lane.base;
        const auto spread = [&](const float* from) __attribute__((always_inline)) {
          return lane.uniform ? simd::set1(from[at]) : simd::lookup(simd::load(from + at), indexes);
        };
        const F scale = spread(scales);
        F zero = simd::mul(scale, simd::set1(-bias));
        if (zeros != nullptr) zero = simd::add(zero, spread(zeros));
#pragma GCC unroll 4
        for (int h = 0; h < H; ++h) {
          F& total = totals[h * height + t];
          total = simd::fma(simd::to_float(sums[h * height + t]), scale, total);
          if constexpr (has_offsets) total = simd::fma(zero, simd::load(zero_sums[h][first]), total);
        }
      }
    }
    alignas(64) float results[simd::floats];
    simd::store(results, simd::sum_each(totals));
    for (int h = 0; h < H; ++h) {
      for (int t = 0; t < height; ++t) results[h * height + t] *= rounded[h].factor;
    }
    put_results<H, height>(results, rows, r, out, out_stride);
  }
}

}  // namespace
