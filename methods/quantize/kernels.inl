// The kernels of kernels.hpp; included by a file an instruction set.
//
// dots. A step of codes becomes registers of 16-bit words, multiplied pairwise with the query's:
//   8 bits   bytes/2 codes, one register, in their order
//   4 bits   2 * bytes codes, word i holds codes 4i .. 4i+3; register j = code j of each word, so that the query lies
//            permuted: register j of a step holds q[4i + j]
// A micro-tile of floats / H rows x H queries keeps an accumulator a pair, and one tree of shuffles sums them all.
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

using quantize::CodeRows;
using quantize::Rounded;
using simd::F;
using simd::I;

template <int N>
struct Constant {
  static constexpr int value = N;
};

constexpr std::uint64_t words = simd::bytes / 2;  // 16-bit integers a register

template <unsigned Bits>
constexpr std::uint64_t step_codes = Bits == 8 ? words : 4 * words;
template <unsigned Bits>
constexpr std::uint64_t step_bytes = Bits == 8 ? words : 2 * words;

KVLAB_SIMD std::uint64_t least(std::uint64_t a, std::uint64_t b) { return a < b ? a : b; }

// Bytes [first, last) of what comes next into the second-level cache, and those of these rows that are `near` bytes on
// into the first: the tiles of keys and of values take turns, which the hardware's own prefetching does not follow.
constexpr std::uint64_t near = 512;
KVLAB_SIMD void prefetch(const CodeRows& rows, std::uint64_t first, std::uint64_t last) {
  const auto* own = reinterpret_cast<const char*>(rows.base);
  for (std::uint64_t at = first; at < last; at += 64) _mm_prefetch(own + near + at, _MM_HINT_T0);
  const auto* ahead = reinterpret_cast<const char*>(rows.ahead);
  last = least(last, rows.ahead_size);
  for (; first < last; first += 64) _mm_prefetch(ahead + first, _MM_HINT_T1);
}

// ---- rounding ------------------------------------------------------------------------------------------------------

KVLAB_SIMD float largest_of(const float* x, std::uint64_t count) {
  F most = simd::zero();
  for (std::uint64_t i = 0; i < count; i += simd::floats) {
    most = simd::max(most, simd::absolute(simd::load_first(x + i, static_cast<int>(least(count - i, simd::floats)))));
  }
  return simd::largest(most);
}

// Integers of x * limit / largest, |x| <= largest; `to(i)` is where integer i goes.
template <class Place>
KVLAB_SIMD Rounded round_to(const float* x, std::uint64_t count, float limit, std::int16_t* out, Place to) {
  const float largest = largest_of(x, count);
  // The division must not overflow: what is that small is zero beside any score.
  const bool nothing = !(largest > 1e-30F);
  const F by = simd::set1(nothing ? 0.0F : limit / largest);
  alignas(64) std::int32_t rounded[simd::floats];
  std::int32_t sum = 0;
  for (std::uint64_t i = 0; i < count; i += simd::floats) {
    const std::uint64_t now = least(count - i, simd::floats);
    simd::istore(rounded, simd::to_int(simd::mul(simd::load_first(x + i, static_cast<int>(now)), by)));
    for (std::uint64_t j = 0; j < now; ++j) {
      sum += rounded[j];
      out[to(i + j)] = static_cast<std::int16_t>(rounded[j]);
    }
  }
  return {nothing ? 0.0F : largest / limit, static_cast<float>(sum)};
}

std::uint64_t place(std::uint64_t i, unsigned bits) {
  if (bits == 8) return i;
  const std::uint64_t in_step = i % step_codes<4>;
  return i - in_step + in_step % 4 * words + in_step / 4;
}

Rounded round_query(const float* x, std::uint64_t count, unsigned bits, std::int32_t largest_code, std::int16_t* out) {
  // largest_code * limit * count stays below 2^31.
  const std::uint64_t fits = 0x7FFFFFFFU / (static_cast<std::uint64_t>(largest_code) * (count > 0 ? count : 1));
  const auto limit = static_cast<float>(least(fits, 32767));
  __builtin_memset(out, 0, quantize::padded(count) * sizeof(std::int16_t));
  return round_to(x, count, limit, out, [bits](std::uint64_t i) { return place(i, bits); });
}

Rounded round_weights(const float* x, const float* scales, std::uint64_t count, std::int16_t* out) {
  alignas(64) float products[quantize::most_channels];
  F most = simd::zero();
  for (std::uint64_t i = 0; i < count; i += simd::floats) {
    const int now = static_cast<int>(least(count - i, simd::floats));
    const F y = simd::mul(simd::load_first(x + i, now), simd::load_first(scales + i, now));
    most = simd::max(most, simd::absolute(y));
    simd::store(products + i, y);
  }
  const float largest = simd::largest(most);
  const bool nothing = !(largest > 1e-30F);
  const F by = simd::set1(nothing ? 0.0F : 32767.0F / largest);
  I sum = simd::izero();
  for (std::uint64_t i = 0; i < count; i += simd::floats) {
    const I rounded = simd::to_int(simd::mul(simd::load(products + i), by));
    sum = simd::iadd(sum, rounded);
    simd::store_words(out + i, rounded);
  }
  out[count] = 0;
  return {nothing ? 0.0F : largest / 32767.0F, static_cast<float>(simd::sum_int(sum))};
}

// One row after another, for numbers of groups that do not divide a register.
void round_group_weights_slowly(const float* x, const float* scales, std::uint64_t rows, std::uint64_t groups,
                                std::int16_t* out, Rounded* rounded) {
  if (rows % 2 != 0) __builtin_memset(out + (rows - 1) * groups, 0, 2 * groups * sizeof(std::int16_t));
  for (std::uint64_t g = 0; g < groups; ++g) {
    float largest = 0;
    for (std::uint64_t r = 0; r < rows; ++r) {
      const float y = __builtin_fabsf(x[r] * scales[r * groups + g]);
      largest = y > largest ? y : largest;
    }
    const bool nothing = !(largest > 1e-30F);
    const float by = nothing ? 0.0F : 32767.0F / largest;
    std::int32_t sum = 0;
    for (std::uint64_t r = 0; r < rows; ++r) {
      const int integer = _mm_cvtss_si32(_mm_set_ss(x[r] * scales[r * groups + g] * by));
      sum += integer;
      out[((r / 2) * groups + g) * 2 + r % 2] = static_cast<std::int16_t>(integer);
    }
    rounded[g] = {nothing ? 0.0F : largest / 32767.0F, static_cast<float>(sum)};
  }
}

// A register holds floats / groups rows, all groups of each: what is made of a group is made of every groups-th
// element.
void round_group_weights(const float* x, const float* scales, std::uint64_t rows, std::uint64_t groups,
                         std::int16_t* out, Rounded* rounded) {
  constexpr std::uint64_t most_rows_here = 128;
  if (simd::floats % (2 * groups) != 0 || rows > most_rows_here) {
    round_group_weights_slowly(x, scales, rows, groups, out, rounded);
    return;
  }
  alignas(64) float products[most_rows_here * simd::floats / 2];
  alignas(64) std::int32_t row_of[simd::floats];
  alignas(64) std::int32_t next_row[simd::floats];
  alignas(64) std::int32_t even_rows[simd::floats] = {};
  for (std::uint64_t i = 0; i < simd::floats; ++i) {
    row_of[i] = static_cast<std::int32_t>(i / groups);
    next_row[i] = static_cast<std::int32_t>(least(i + groups, simd::floats - 1));
  }
  for (std::uint64_t i = 0; i < simd::floats / 2; ++i) {
    even_rows[i] = static_cast<std::int32_t>(i / groups * 2 * groups + i % groups);
  }
  const std::uint64_t elements = rows * groups;
  const I rows_in_register = simd::iload(row_of);
  F most = simd::zero();
  for (std::uint64_t i = 0; i < elements; i += simd::floats) {
    const std::uint64_t row = i / groups;
    const F w =
        simd::lookup(simd::load_first(x + row, static_cast<int>(least(rows - row, simd::floats))), rows_in_register);
    const F s = simd::load_first(scales + i, static_cast<int>(least(elements - i, simd::floats)));
    const F y = simd::mul(w, s);
    most = simd::max(most, simd::absolute(y));
    simd::store(products + i, y);
  }
  alignas(64) float largest[simd::floats];
  alignas(64) float by[simd::floats];
  simd::store(largest, most);
  for (std::uint64_t g = 0; g < groups; ++g) {
    float all = 0;
    for (std::uint64_t i = g; i < simd::floats; i += groups) all = largest[i] > all ? largest[i] : all;
    const bool nothing = !(all > 1e-30F);
    rounded[g].factor = nothing ? 0.0F : all / 32767.0F;
    for (std::uint64_t i = g; i < simd::floats; i += groups) by[i] = nothing ? 0.0F : 32767.0F / all;
  }
  const F factor = simd::load(by);
  I sums = simd::izero();
  for (std::uint64_t i = 0; i < elements; i += simd::floats) {
    const I integers = simd::to_int(simd::mul(simd::load(products + i), factor));
    sums = simd::iadd(sums, integers);
    const I odd = simd::shift_left_32<16>(simd::ilookup(integers, simd::iload(next_row)));
    const I both = simd::ior(simd::iand(integers, simd::iset1(0xFFFF)), odd);
    simd::store_half(out + i, simd::ilookup(both, simd::iload(even_rows)));
  }
  alignas(64) std::int32_t each[simd::floats];
  simd::istore(each, sums);
  for (std::uint64_t g = 0; g < groups; ++g) {
    std::int32_t sum = 0;
    for (std::uint64_t i = g; i < simd::floats; i += groups) sum += each[i];
    rounded[g].sum = static_cast<float>(sum);
  }
}

void group_dot(const float* x, const float* zeros, std::uint64_t rows, std::uint64_t groups, float* sums) {
  if (simd::floats % groups != 0) {
    for (std::uint64_t r = 0; r < rows; ++r) {
      for (std::uint64_t g = 0; g < groups; ++g) sums[g] += x[r] * zeros[r * groups + g];
    }
    return;
  }
  alignas(64) std::int32_t row_of[simd::floats];
  for (std::uint64_t i = 0; i < simd::floats; ++i) row_of[i] = static_cast<std::int32_t>(i / groups);
  const I rows_in_register = simd::iload(row_of);
  F total = simd::zero();
  for (std::uint64_t i = 0; i < rows * groups; i += simd::floats) {
    const std::uint64_t row = i / groups;
    const F w =
        simd::lookup(simd::load_first(x + row, static_cast<int>(least(rows - row, simd::floats))), rows_in_register);
    const F z = simd::load_first(zeros + i, static_cast<int>(least(rows * groups - i, simd::floats)));
    total = simd::fma(w, z, total);
  }
  alignas(64) float each[simd::floats];
  simd::store(each, total);
  for (std::uint64_t i = 0; i < simd::floats; ++i) sums[i % groups] += each[i];
}

void pair_rows(const std::int16_t* weights, std::uint64_t rows, std::uint64_t side, std::int16_t* out, float* sums) {
  std::int32_t total[8] = {};
  const std::uint64_t places = rows / side;
  for (std::uint64_t place = 0; place < places; place += 2) {
    const std::int16_t* a = weights + place * side;
    for (std::uint64_t s = 0; s < side; ++s) {
      const std::int16_t second = place + 1 < places ? a[side + s] : std::int16_t{0};
      total[s] += a[s] + second;
      out[(place * side) + 2 * s] = a[s];
      out[(place * side) + 2 * s + 1] = second;
    }
  }
  for (std::uint64_t s = 0; s < side; ++s) sums[s] = static_cast<float>(total[s]);
}

// ---- dots ----------------------------------------------------------------------------------------------------------

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
    simd::store(totals, simd::to_float(simd::sums_of_each(sums)));
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
          total = simd::fma(zero, simd::load(zero_sums[h][first]), total);
        }
      }
    }
    alignas(64) float results[simd::floats];
    simd::store(results, simd::reduce_each<simd::Adds>(totals));
    for (int h = 0; h < H; ++h) {
      for (int t = 0; t < height; ++t) results[h * height + t] *= rounded[h].factor;
    }
    put_results<H, height>(results, rows, r, out, out_stride);
  }
}

// ---- sums ----------------------------------------------------------------------------------------------------------

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
      weight_sums[i] = static_cast<std::int32_t>(of.sum);
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

// ---- choices -------------------------------------------------------------------------------------------------------

// Calls body<Bits, Signed, H>(first query) until all are done.
template <int Most4, class Body>
KVLAB_SIMD void dispatch(const CodeRows& rows, std::uint64_t queries, Body body) {
  if (rows.rows == 0 || rows.columns == 0) return;
  const auto each = [&](auto bits, auto is_signed) __attribute__((always_inline)) {
    constexpr int most = decltype(bits)::value == 8 ? 4 : Most4;
    for (std::uint64_t q = 0; q < queries;) {
      const std::uint64_t left = queries - q;
      if constexpr (most >= 4) {
        if (left >= 4) {
          body(bits, is_signed, Constant<4>{}, q);
          q += 4;
          continue;
        }
      }
      if (left >= 2) {
        body(bits, is_signed, Constant<2>{}, q);
        q += 2;
      } else {
        body(bits, is_signed, Constant<1>{}, q);
        q += 1;
      }
    }
  };
  if (rows.bits == 8) {
    if (rows.is_signed) {
      each(Constant<8>{}, Constant<1>{});
    } else {
      each(Constant<8>{}, Constant<0>{});
    }
  } else if (rows.is_signed) {
    each(Constant<4>{}, Constant<1>{});
  } else {
    each(Constant<4>{}, Constant<0>{});
  }
}

void dots(const CodeRows& rows, const std::int16_t* x, std::uint64_t x_stride, const Rounded* rounded,
          std::uint64_t queries, const float* scales, const float* zeros, float* out, std::uint64_t out_stride) {
  dispatch<4>(rows, queries, [&](auto bits, auto is_signed, auto h, std::uint64_t q) {
    dots_of<static_cast<unsigned>(bits.value), is_signed.value != 0, h.value>(
        rows, x + q * x_stride, x_stride, rounded + q, scales, zeros, out + q * out_stride, out_stride);
  });
}

void group_dots(const CodeRows& rows, std::uint64_t group, std::uint64_t groups, const std::int16_t* x,
                std::uint64_t x_stride, const Rounded* rounded, const float* group_sums, std::uint64_t queries,
                const float* scales, const float* zeros, float* out, std::uint64_t out_stride) {
  dispatch<4>(rows, queries, [&](auto bits, auto is_signed, auto h, std::uint64_t q) {
    group_dots_of<static_cast<unsigned>(bits.value), is_signed.value != 0, h.value>(
        rows, group, groups, x + q * x_stride, x_stride, rounded + q, group_sums + q * groups, scales, zeros,
        out + q * out_stride, out_stride);
  });
}

constexpr int most_queries_4 = simd::floats == 16 ? 4 : 2;  // accumulators of 4-bit sums

void sums(const CodeRows& rows, const std::int16_t* weights, std::uint64_t weight_stride, const Rounded* rounded,
          std::uint64_t queries, float* sums, std::uint64_t sum_stride) {
  dispatch<most_queries_4>(rows, queries, [&](auto bits, auto is_signed, auto h, std::uint64_t q) {
    sums_over_columns<static_cast<unsigned>(bits.value), is_signed.value != 0, h.value, false>(
        rows, 0, 1, weights + q * weight_stride, weight_stride, rounded + q, sums + q * sum_stride, sum_stride);
  });
}

void group_sums(const CodeRows& rows, std::uint64_t group, std::uint64_t groups, const std::int16_t* weights,
                std::uint64_t weight_stride, const Rounded* rounded, std::uint64_t queries, float* sums,
                std::uint64_t sum_stride) {
  dispatch<most_queries_4>(rows, queries, [&](auto bits, auto is_signed, auto h, std::uint64_t q) {
    sums_over_columns<static_cast<unsigned>(bits.value), is_signed.value != 0, h.value, true>(
        rows, group, groups, weights + q * weight_stride, weight_stride, rounded + q * groups, sums + q * sum_stride,
        sum_stride);
  });
}

// ---- what is left --------------------------------------------------------------------------------------------------

// Eight codes lie in `bits` bytes: pdep puts each into a byte of its own.
void unpack(const std::uint8_t* row, unsigned bits, bool is_signed, std::uint64_t count, std::uint8_t* out) {
  constexpr std::uint64_t each = 0x0101010101010101U;
  const std::uint64_t mask = each * ((1U << bits) - 1U);
  const std::uint64_t sign = is_signed ? each << (bits - 1) : 0;
  constexpr std::uint64_t top = each << 7;
  for (std::uint64_t i = 0; i < count; i += 8, row += bits) {
    std::uint64_t packed;
    __builtin_memcpy(&packed, row, sizeof packed);
    std::uint64_t codes = _pdep_u64(packed, mask);
    // Sign-extended a byte at a time: the bit at the top keeps a borrow from leaving its byte.
    codes = (((codes ^ sign) | top) - sign) ^ top;
    __builtin_memcpy(out + i, &codes, sizeof codes);
  }
}

// The other way round: the low bits of `count` bytes, packed; the last byte written is the last that they fill.
void pack(const std::uint8_t* bytes, unsigned bits, std::uint64_t count, std::uint8_t* out) {
  const std::uint64_t mask = 0x0101010101010101U * ((1U << bits) - 1U);
  std::uint64_t i = 0;
  for (; i + 8 <= count; i += 8, out += bits) {
    std::uint64_t codes;
    __builtin_memcpy(&codes, bytes + i, sizeof codes);
    codes = _pext_u64(codes, mask);
    __builtin_memcpy(out, &codes, bits);
  }
  if (i == count) return;
  std::uint64_t codes = 0;
  __builtin_memcpy(&codes, bytes + i, count - i);
  codes = _pext_u64(codes, mask);
  __builtin_memcpy(out, &codes, ((count - i) * bits + 7) / 8);
}

void load_scales(const std::uint8_t* from, unsigned dtype, std::uint64_t count, float* out) {
  if (dtype == 2) {
    __builtin_memcpy(out, from, count * sizeof(float));
    return;
  }
  const auto* bits = reinterpret_cast<const std::uint16_t*>(from);
  std::uint64_t i = 0;
  for (; i + simd::floats <= count; i += simd::floats) {
    simd::store(out + i, dtype == 0 ? simd::load_f16(bits + i) : simd::load_bf16(bits + i));
  }
  for (; i < count; ++i) {
    std::uint16_t half;
    __builtin_memcpy(&half, bits + i, sizeof half);
    out[i] = dtype == 0 ? _cvtsh_ss(half) : simd::bf16_one(half);
  }
}

float dot(const float* a, const float* b, std::uint64_t count) {
  F total = simd::zero();
  for (std::uint64_t i = 0; i < count; i += simd::floats) {
    const int now = static_cast<int>(least(count - i, simd::floats));
    total = simd::fma(simd::load_first(a + i, now), simd::load_first(b + i, now), total);
  }
  return simd::sum(total);
}

}  // namespace
