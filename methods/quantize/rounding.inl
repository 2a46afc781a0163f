// Queries and weights as 16-bit integers, each vector with a factor of its own; included by kernels.inl.

namespace {

// The largest magnitude of what is included, or NaN: as integers, the bits of a NaN are above those of any number.
struct Magnitudes {
  I most = simd::izero();

  KVLAB_MEMBER void include(F x) {
    most = simd::max_signed_32(most, simd::iand(simd::bits_of(x), simd::iset1(0x7FFFFFFF)));
  }
  [[nodiscard]] KVLAB_MEMBER float largest() const { return __builtin_bit_cast(float, simd::largest_int(most)); }
};

KVLAB_SIMD float largest_of(const float* x, std::uint64_t count) {
  Magnitudes found;
  for (std::uint64_t i = 0; i < count; i += simd::floats) {
    found.include(simd::load_first(x + i, static_cast<int>(least(count - i, simd::floats))));
  }
  return found.largest();
}

float largest_decoded(const float* scales, const float* zeros, std::uint64_t count, float high) {
  Magnitudes found;
  for (std::uint64_t i = 0; i < count; i += simd::floats) {
    const int now = static_cast<int>(least(count - i, simd::floats));
    F top = simd::mul(simd::load_first(scales + i, now), simd::set1(high));
    if (zeros != nullptr) {
      const F zero = simd::load_first(zeros + i, now);
      found.include(zero);
      top = simd::add(top, zero);
    }
    found.include(top);
  }
  return found.largest();
}

// Of numbers up to `largest` rounded to steps of largest / limit; nothing: all to 0.
KVLAB_SIMD Rounded rounded_by(float largest, float limit, bool nothing, I sum) {
  return {nothing ? 0.0F : largest / limit, static_cast<float>(simd::sum_int(sum)),
          nothing ? largest : 0.5F * largest / limit};
}

Rounded round_query(const float* x, std::uint64_t count, unsigned bits, std::int32_t largest_code, std::uint64_t group,
                    std::int16_t* out, float* group_sums) {
  // largest_code * limit * count stays below 2^31.
  const std::uint64_t fits = 0x7FFFFFFFU / (static_cast<std::uint64_t>(largest_code) * (count > 0 ? count : 1));
  const auto limit = static_cast<float>(least(fits, 32767));
  const float largest = largest_of(x, count);
  const bool nothing = !(largest > quantize::least_rounded);
  const F by = simd::set1(nothing ? 0.0F : limit / largest);
  const std::uint64_t size = quantize::padded(count);
  alignas(64) std::int16_t in_order[quantize::most_channels];
  std::int16_t* to = bits == 8 ? out : in_order;
  I sum = simd::izero();
  for (std::uint64_t i = 0; i < size; i += simd::floats) {
    const int now = i < count ? static_cast<int>(least(count - i, simd::floats)) : 0;
    const I rounded = simd::to_int(simd::mul(simd::load_first(x + i, now), by));
    sum = simd::iadd(sum, rounded);
    simd::store_words(to + i, rounded);
  }
  if (group_sums != nullptr) {
    for (std::uint64_t from = 0; from < count; from += group) {
      std::int32_t of_group = 0;
      for (std::uint64_t i = from; i < least(from + group, count); ++i) of_group += to[i];
      *group_sums++ = static_cast<float>(of_group);
    }
  }
  if (bits != 8) {  // as dots meets codes of 4 bits
    for (std::uint64_t step = 0; step < size; step += step_codes<4>) {
      for (std::uint64_t i = 0; i < words; ++i) {
        for (std::uint64_t j = 0; j < 4; ++j) out[step + j * words + i] = in_order[step + 4 * i + j];
      }
    }
  }
  return rounded_by(largest, limit, nothing, sum);
}

Rounded round_weights(const float* x, const float* scales, std::uint64_t count, bool wants_rest, std::int16_t* out) {
  alignas(64) float products[quantize::most_channels];
  Magnitudes found;
  F total = simd::zero();
  for (std::uint64_t i = 0; i < count; i += simd::floats) {
    const int now = static_cast<int>(least(count - i, simd::floats));
    const F y = simd::mul(simd::load_first(x + i, now), simd::load_first(scales + i, now));
    found.include(y);
    total = simd::add(total, y);
    simd::store(products + i, y);
  }
  const float largest = found.largest();
  const bool nothing = !(largest > quantize::least_rounded);
  const F by = simd::set1(nothing ? 0.0F : 32767.0F / largest);
  I sum = simd::izero();
  for (std::uint64_t i = 0; i < count; i += simd::floats) {
    const I rounded = simd::to_int(simd::mul(simd::load(products + i), by));
    sum = simd::iadd(sum, rounded);
    simd::store_words(out + i, rounded);
  }
  out[count] = 0;
  Rounded made = rounded_by(largest, 32767, nothing, sum);
  if (wants_rest) made.rest = simd::sum(total) - made.factor * made.sum;
  return made;
}

// One row after another, for numbers of groups that do not divide a register.
void round_group_weights_slowly(const float* x, const float* scales, std::uint64_t rows, std::uint64_t groups,
                                bool wants_rest, std::int16_t* out, Rounded* rounded) {
  if (rows % 2 != 0) __builtin_memset(out + (rows - 1) * groups, 0, 2 * groups * sizeof(std::int16_t));
  for (std::uint64_t g = 0; g < groups; ++g) {
    float largest = 0;
    float total = 0;
    for (std::uint64_t r = 0; r < rows; ++r) {
      const float y = x[r] * scales[r * groups + g];
      largest = __builtin_fabsf(y) > largest ? __builtin_fabsf(y) : largest;
      total += y;
    }
    const bool nothing = !(largest > quantize::least_rounded);
    const float by = nothing ? 0.0F : 32767.0F / largest;
    std::int32_t sum = 0;
    for (std::uint64_t r = 0; r < rows; ++r) {
      const auto integer = static_cast<std::int16_t>(_mm_cvtss_si32(_mm_set_ss(x[r] * scales[r * groups + g] * by)));
      sum += integer;
      out[((r / 2) * groups + g) * 2 + r % 2] = integer;
    }
    rounded[g] = {nothing ? 0.0F : largest / 32767.0F, static_cast<float>(sum)};
    if (wants_rest) rounded[g].rest = total - rounded[g].factor * rounded[g].sum;
  }
}

// A register holds floats / groups rows, all groups of each: what is made of a group is made of every groups-th
// element.
void round_group_weights(const float* x, const float* scales, std::uint64_t rows, std::uint64_t groups, bool wants_rest,
                         std::int16_t* out, Rounded* rounded) {
  constexpr std::uint64_t most_rows_here = 128;
  if (simd::floats % (2 * groups) != 0 || rows > most_rows_here) {
    round_group_weights_slowly(x, scales, rows, groups, wants_rest, out, rounded);
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
  F total = simd::zero();
  for (std::uint64_t i = 0; i < elements; i += simd::floats) {
    const std::uint64_t row = i / groups;
    const F w =
        simd::lookup(simd::load_first(x + row, static_cast<int>(least(rows - row, simd::floats))), rows_in_register);
    const F s = simd::load_first(scales + i, static_cast<int>(least(elements - i, simd::floats)));
    const F y = simd::mul(w, s);
    most = simd::max(most, simd::absolute(y));
    total = simd::add(total, y);
    simd::store(products + i, y);
  }
  alignas(64) float largest[simd::floats];
  alignas(64) float totals[simd::floats];
  alignas(64) float by[simd::floats];
  simd::store(largest, most);
  if (wants_rest) simd::store(totals, total);
  for (std::uint64_t g = 0; g < groups; ++g) {
    float all = 0;
    for (std::uint64_t i = g; i < simd::floats; i += groups) all = largest[i] > all ? largest[i] : all;
    const bool nothing = !(all > quantize::least_rounded);
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
    std::uint32_t sum = 0;  // wraps where weights were no numbers
    for (std::uint64_t i = g; i < simd::floats; i += groups) sum += static_cast<std::uint32_t>(each[i]);
    rounded[g].sum = static_cast<float>(static_cast<std::int32_t>(sum));
    rounded[g].rest = 0;
    if (!wants_rest) continue;
    float all = 0;
    for (std::uint64_t i = g; i < simd::floats; i += groups) all += totals[i];
    rounded[g].rest = all - rounded[g].factor * rounded[g].sum;
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

}  // namespace
