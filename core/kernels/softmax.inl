// The softmax between scores and sums, and the copy past the caches. Included by one file per instruction set.

namespace {

float scale_and_max(float* x, std::size_t count, float factor, bool& finite) {
  const simd::F by = simd::set1(factor);
  simd::F most = simd::set1(-__builtin_inff());
  bool bad = false;
  std::size_t i = 0;
  for (; i + simd::floats <= count; i += simd::floats) {
    const simd::F y = simd::mul(simd::load(x + i), by);
    bad |= simd::any_not_finite(y);
    most = simd::max(most, y);
    simd::store(x + i, y);
  }
  float largest = simd::largest(most);
  for (; i < count; ++i) {
    x[i] *= factor;
    bad |= !__builtin_isfinite(x[i]);
    largest = x[i] > largest ? x[i] : largest;
  }
  if (bad) finite = false;
  return largest;
}

// e^x = 2^n * 2^f with n whole and |f| <= 1/2: n from x / ln 2 rounded, x - n ln 2 in two steps so that no digit is
// lost, and 2^f = e^(f ln 2) by its Taylor polynomial of degree 7 (error 5e-9 there). Below -87.3 the result is 0.
KVLAB_SIMD simd::F exponential(simd::F x) {
  const simd::F least = simd::set1(-87.3F);
  const simd::F y = simd::max(x, least);
  const simd::F n = simd::round_even(simd::mul(y, simd::set1(1.44269504F)));
  simd::F r = simd::fma(n, simd::set1(-0.693359375F), y);
  r = simd::fma(n, simd::set1(2.12194440e-4F), r);
  simd::F p = simd::set1(1.0F / 5040);
  p = simd::fma(p, r, simd::set1(1.0F / 720));
  p = simd::fma(p, r, simd::set1(1.0F / 120));
  p = simd::fma(p, r, simd::set1(1.0F / 24));
  p = simd::fma(p, r, simd::set1(1.0F / 6));
  p = simd::fma(p, r, simd::set1(0.5F));
  p = simd::fma(p, r, simd::set1(1.0F));
  p = simd::fma(p, r, simd::set1(1.0F));
  return simd::keep_if_above(simd::scale_by_power(p, n), x, least);
}

float exponentials(float* x, std::size_t count, float maximum) {
  const simd::F shift = simd::set1(maximum);
  simd::F total = simd::zero();
  std::size_t i = 0;
  for (; i + simd::floats <= count; i += simd::floats) {
    const simd::F y = exponential(simd::sub(simd::load(x + i), shift));
    total = simd::add(total, y);
    simd::store(x + i, y);
  }
  if (i < count) {
    const int left = static_cast<int>(count - i);
    const simd::F y = simd::first(exponential(simd::sub(simd::load_first(x + i, left), shift)), left);
    total = simd::add(total, y);
    simd::store_first(x + i, y, left);
  }
  return simd::sum(total);
}

void stream_copy(std::byte* to, const std::byte* from, std::size_t count) {
  std::size_t i = 0;
  for (; i + 64 <= count; i += 64) {
    for (int j = 0; j < 64; j += simd::bytes) simd::stream(to + i + j, simd::iload(from + i + j));
  }
  __builtin_memcpy(to + i, from + i, count - i);
  simd::fence();
}

}  // namespace
