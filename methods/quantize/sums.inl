// One result a column of codes; included by kernels.inl.
//
// sums. Rows are taken in pairs: their 16-bit words interleave, so that one 32-bit lane holds word i of both rows and
// a product of pairs with (w_r, w_r+1) adds both. A word holds 2 or 4 codes, told apart only at the end:
//
//   8 bits   S0 = sum w * (o * 256 + e)            S1 = sum w * o                       e: S0 - 256 S1
//   4 bits   S0 = sum w * (n3 n2 n1 n0)  S1 = sum w * (n3 n2 n1)  S2 = sum w * (n3 n2)  S3 = sum w * n3
//            n2: S2 - 16 S3, n1: S1 - 16 S2, n0: S0 - 16 S1
//
// S0 may wrap: what is made of it is right modulo 2^32, and fits. The shift that drops lower codes is arithmetic, so
// the top code of a word must be signed and the others unsigned: `bias` flips their sign bits on the way in, and the
// sum of the weights puts them right on the way out.

namespace {

// sums[column ..] += factor * v for the columns that exist.
KVLAB_SIMD void add_piece(float* sums, std::uint64_t column, std::uint64_t columns, const std::int32_t* v,
                          float factor) {
  if (column >= columns) return;
  const __m128 y =
      _mm_mul_ps(_mm_cvtepi32_ps(_mm_load_si128(reinterpret_cast<const __m128i*>(v))), _mm_set1_ps(factor));
  if (column + 4 <= columns) {
    _mm_storeu_ps(sums + column, _mm_add_ps(_mm_loadu_ps(sums + column), y));
    return;
  }
  alignas(16) float left[4];
  _mm_store_ps(left, y);
  for (std::uint64_t i = 0; column + i < columns; ++i) sums[column + i] += left[i];
}

// The codes of a word told apart: planes S0 .. of one query and half become sums in the order of columns within each
// 128-bit lane.
template <unsigned Bits, bool Signed>
KVLAB_SIMD void tell_apart(I* s, I weight_sum, I* ordered) {
  if constexpr (Bits == 8) {
    const I fix = simd::shift_left_32<7>(weight_sum);
    const I low = simd::isub(s[0], simd::shift_left_32<8>(s[1]));
    const I even = Signed ? simd::isub(low, fix) : low;
    const I odd = Signed ? s[1] : simd::iadd(s[1], fix);
    ordered[0] = simd::interleave_low_32(even, odd);
    ordered[1] = simd::interleave_high_32(even, odd);
  } else {
    const I fix = simd::shift_left_32<3>(weight_sum);
    I n[4] = {simd::isub(s[0], simd::shift_left_32<4>(s[1])), simd::isub(s[1], simd::shift_left_32<4>(s[2])),
              simd::isub(s[2], simd::shift_left_32<4>(s[3])), s[3]};
    if constexpr (Signed) {
      for (int i = 0; i < 3; ++i) n[i] = simd::isub(n[i], fix);
    } else {
      n[3] = simd::iadd(n[3], fix);
    }
    const I a = simd::interleave_low_32(n[0], n[1]);
    const I b = simd::interleave_low_32(n[2], n[3]);
    const I c = simd::interleave_high_32(n[0], n[1]);
    const I d = simd::interleave_high_32(n[2], n[3]);
    ordered[0] = simd::interleave_low_64(a, b);
    ordered[1] = simd::interleave_high_64(a, b);
    ordered[2] = simd::interleave_low_64(c, d);
    ordered[3] = simd::interleave_high_64(c, d);
  }
}

// Adds the sums of one query and half of each lane to their columns.
template <unsigned Bits, bool Signed>
KVLAB_SIMD void put_sums(I* s, const std::int32_t* weight_sums, const float* factors, std::uint64_t first_column,
                         int half, std::uint64_t columns, float* sums) {
  constexpr int registers = 16 / Bits;
  I ordered[registers];
  tell_apart<Bits, Signed>(s, simd::iload(weight_sums), ordered);
  for (int k = 0; k < registers; ++k) {
    alignas(64) std::int32_t v[simd::floats];
    simd::istore(v, ordered[k]);
    for (int lane = 0; lane < simd::lanes; ++lane) {
      const std::uint64_t column = first_column + static_cast<std::uint64_t>(lane) * (128 / Bits) +
                                   static_cast<std::uint64_t>(4 * (half * registers + k));
      add_piece(sums, column, columns, v + 4 * lane, factors[4 * lane]);
    }
  }
}

// One register of columns from byte `chunk` of each row on: the words of halves [Half, Half + Halves) of each lane.
template <unsigned Bits, bool Signed, int H, int Half, int Halves, bool Grouped>
KVLAB_SIMD void sums_of(const CodeRows& rows, std::uint64_t chunk, std::uint64_t group, std::uint64_t groups,
                        const std::int16_t* weights, std::uint64_t weight_stride, const Rounded* rounded, float* sums,
                        std::uint64_t sum_stride) {
  constexpr int planes = 16 / Bits;
  constexpr std::uint16_t bias = Bits == 8 ? (Signed ? 0x0080 : 0x8000) : (Signed ? 0x0888 : 0x8000);
  const I flip = simd::iset1_16(static_cast<std::int16_t>(bias));
  constexpr std::uint64_t lane_columns = 128 / Bits;
  const std::uint64_t first_column = chunk * 8 / Bits;
  const std::uint64_t base = Grouped ? first_column / group : 0;
  alignas(64) std::int32_t lane_group[simd::floats] = {};
  if constexpr (Grouped) {
    for (int i = 0; i < simd::floats; ++i) {
      const std::uint64_t g = (first_column + static_cast<std::uint64_t>(i / 4) * lane_columns) / group;
      lane_group[i] = static_cast<std::int32_t>(least(g, groups - 1) - base);
    }
  }
  const I indexes = simd::iload(lane_group);
  I s[H][Halves][planes];
#pragma GCC unroll 4
  for (int h = 0; h < H; ++h) {
#pragma GCC unroll 2
    for (int half = 0; half < Halves; ++half) {
#pragma GCC unroll 4
      for (int p = 0; p < planes; ++p) s[h][half][p] = simd::izero();
    }
  }
  const bool fetches = chunk == 0 && Half == 0;
  const std::uint8_t* row = rows.base + chunk;
  for (std::uint64_t r = 0; r < rows.rows; r += 2, row += 2 * rows.row_bytes) {
    if (fetches) prefetch(rows, r * rows.row_bytes, (r + 2) * rows.row_bytes);
    const I a = simd::ixor(simd::iload(row), flip);
    const I b = simd::ixor(simd::iload(r + 1 < rows.rows ? row + rows.row_bytes : row), flip);  // weighed 0 at the end
    I plane[Halves][planes];
#pragma GCC unroll 2
    for (int half = 0; half < Halves; ++half) {
      I* p = plane[half];
      p[0] = Half + half == 0 ? simd::interleave_low_16(a, b) : simd::interleave_high_16(a, b);
      p[1] = simd::shift_right_16_signed<static_cast<int>(Bits)>(p[0]);
      if constexpr (Bits == 4) {
        p[2] = simd::shift_right_16_signed<8>(p[0]);
        p[3] = simd::shift_right_16_signed<12>(p[0]);
      }
    }
#pragma GCC unroll 4
    for (int h = 0; h < H; ++h) {
      const std::int16_t* from = weights + static_cast<std::uint64_t>(h) * weight_stride;
      I w;
      if constexpr (Grouped) {
        w = simd::ilookup(simd::iload(from + r * groups + 2 * base), indexes);
      } else {
        std::int32_t both;
        __builtin_memcpy(&both, from + r, sizeof both);
        w = simd::iset1(both);
      }
#pragma GCC unroll 2
      for (int half = 0; half < Halves; ++half) {
#pragma GCC unroll 4
        for (int p = 0; p < planes; ++p) s[h][half][p] = simd::dot_words(s[h][half][p], plane[half][p], w);
      }
    }
  }
  for (int h = 0; h < H; ++h) {
    alignas(64) std::int32_t weight_sums[simd::floats];
    alignas(64) float factors[simd::floats];
    for (int i = 0; i < simd::floats; ++i) {
      const std::uint64_t g = Grouped ? base + static_cast<std::uint64_t>(lane_group[i]) : 0;
      const Rounded& of = rounded[static_cast<std::uint64_t>(h) * groups + g];
      weight_sums[i] = _mm_cvttss_si32(_mm_set_ss(of.sum));  // any float will do
      factors[i] = of.factor;
    }
    for (int half = 0; half < Halves; ++half) {
      put_sums<Bits, Signed>(s[h][half], weight_sums, factors, first_column, Half + half, rows.columns,
                             sums + static_cast<std::uint64_t>(h) * sum_stride);
    }
  }
}

template <unsigned Bits, bool Signed, int H, bool Grouped>
void sums_over_columns(const CodeRows& rows, std::uint64_t group, std::uint64_t groups, const std::int16_t* weights,
                       std::uint64_t weight_stride, const Rounded* rounded, float* sums, std::uint64_t sum_stride) {
  constexpr int planes = 16 / Bits;
  constexpr bool both = H * planes * 2 <= simd::floats;  // accumulators: half of the registers
  const std::uint64_t width = (rows.columns * Bits + 7) / 8;
  for (std::uint64_t chunk = 0; chunk < width; chunk += simd::bytes) {
    if constexpr (both) {
      sums_of<Bits, Signed, H, 0, 2, Grouped>(rows, chunk, group, groups, weights, weight_stride, rounded, sums,
                                              sum_stride);
    } else {
      sums_of<Bits, Signed, H, 0, 1, Grouped>(rows, chunk, group, groups, weights, weight_stride, rounded, sums,
                                              sum_stride);
      sums_of<Bits, Signed, H, 1, 1, Grouped>(rows, chunk, group, groups, weights, weight_stride, rounded, sums,
                                              sum_stride);
    }
  }
}

}  // namespace
