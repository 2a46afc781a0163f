// Truncated SVD of each block (Eckart and Young, 1936; for KV caches Palu, arXiv 2407.21118): X ~ A V^T with V the
// right singular vectors and A = X V. Written long hand from the definition in README.md.
//
//   factors   A [n][r] | V^T [r][c]  in factor_dtype, | r u16 where `energy` chose it
//   itself    X [n][c]               in factor_dtype, | r u16 where `energy` chose it
#include <kvlab/plugin.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "lapack.hpp"

namespace low_rank {
namespace {

enum class FactorDtype { bf16, f16, f32 };
constexpr std::array dtype_names{"bf16", "f16", "f32"};
constexpr float largest_f32 = 0x1.FFFFFEp127F;

struct LowRank : kvlab::Codec {
  std::uint64_t rank;
  double energy;
  FactorDtype factor_dtype;
  std::uint64_t block;

  static constexpr kvlab::Info info{
      .id = "low_rank",
      .version = "1.0.0",
      .summary = "truncated SVD of each block of tokens",
      .paper_title = "Palu: Compressing KV-Cache with Low-Rank Projection",
      .paper_arxiv = "2407.21118",
  };
  static constexpr auto parameters() {
    return std::tuple{
        kvlab::integer(&LowRank::rank, "rank", 32, kvlab::Range{1, 512}, "1", "singular values kept"),
        kvlab::real(&LowRank::energy, "energy", 0.0, kvlab::Range{0.0, 1.0}, "1",
                    "above 0 it replaces rank: the smallest that holds this share of the squared norm"),
        kvlab::choice(&LowRank::factor_dtype, "factor_dtype", FactorDtype::bf16, dtype_names,
                      "element type of the factors"),
        kvlab::integer(&LowRank::block, "block", 512, kvlab::Range{1, 65536}, "token", "tokens of a block"),
    };
  }

  void start() { use_one_thread(); }

  // ---- sizes -------------------------------------------------------------------------------------------------------

  [[nodiscard]] std::uint64_t block_tokens() const { return block; }
  [[nodiscard]] std::uint64_t element() const { return factor_dtype == FactorDtype::f32 ? 4 : 2; }
  [[nodiscard]] bool stores_rank() const { return energy > 0; }
  // Factors that are no smaller than the block are not worth it.
  [[nodiscard]] bool stores_itself(std::uint64_t n, std::uint64_t r) const {
    return r * (n + head_dim()) >= n * head_dim();
  }
  [[nodiscard]] std::uint64_t bound(std::uint64_t n) const {
    const std::uint64_t r = stores_rank() ? std::min(n, head_dim()) : std::min({rank, n, head_dim()});
    const std::uint64_t factors = stores_itself(n, r) ? n * head_dim() : r * (n + head_dim());
    return factors * element() + (stores_rank() ? 2 : 0);
  }
  [[nodiscard]] std::uint64_t encode_scratch() const {
    const std::uint64_t c = head_dim();
    return kvlab::Scratch::size<float>(block * c) * 3 + kvlab::Scratch::size<float>(c * c) +
           kvlab::Scratch::size<float>(c) + kvlab::Scratch::size<float>(eigen_work(c)) +
           kvlab::Scratch::size<int>(eigen_iwork(c)) + kvlab::Scratch::size<float>(c * c);
  }
  [[nodiscard]] std::uint64_t decode_scratch() const {
    return kvlab::Scratch::size<float>(head_dim() * head_dim()) + kvlab::Scratch::size<float>(head_dim());
  }

  // ---- encode ------------------------------------------------------------------------------------------------------

  kvlab_parts encode(const kvlab::EncodeIn& in, std::span<std::uint8_t> out) const {
    kvlab::Scratch scratch = in.scratch;
    const std::uint64_t n = in.tokens.tokens;
    const std::uint64_t c = head_dim();
    const auto x = scratch.take<float>(n * c);
    in.tokens.read_all(x);

    std::uint64_t r = std::min({rank, n, c});
    if (!stores_rank() && stores_itself(n, r)) {  // the vectors would not be used
      store(x, out.data());
      return {n * c * element(), 0, 0, 0};
    }
    // Scaled to at most 1 by a power of two, which is exact: squares must not overflow.
    const auto a = scratch.take<float>(n * c);
    const int exponent = scale_to_one(x, a);
    const auto g = scratch.take<float>(c * c);
    const auto eigenvalues = scratch.take<float>(c);
    gram(static_cast<int>(n), static_cast<int>(c), a.data(), g.data());
    eigen(static_cast<int>(c), g.data(), eigenvalues.data(), scratch.take<float>(eigen_work(c)),
          scratch.take<int>(eigen_iwork(c)));
    if (stores_rank()) r = std::min({rank_for_energy(eigenvalues), n, c});
    return store_block(x, a, exponent, largest_first(g, r, scratch), r, scratch, out);
  }

  kvlab_parts store_block(std::span<const float> x, std::span<const float> scaled, int exponent,
                          std::span<const float> vectors, std::uint64_t r, kvlab::Scratch scratch,
                          std::span<std::uint8_t> out) const {
    const std::uint64_t c = head_dim();
    const std::uint64_t n = x.size() / c;
    const bool itself = stores_itself(n, r);
    if (stores_rank()) {
      const auto stored = static_cast<std::uint16_t>(r);
      std::memcpy(out.data() + (itself ? n * c : r * (n + c)) * element(), &stored, 2);
    }
    const std::uint64_t indices = stores_rank() ? 2 : 0;
    if (itself) {
      store(x, out.data());
      return {n * c * element(), 0, indices, 0};
    }
    const auto a = scratch.take<float>(n * r);
    project(static_cast<int>(n), static_cast<int>(c), static_cast<int>(r), scaled.data(), vectors.data(), a.data());
    for (float& value : a) value = std::ldexp(value, exponent);
    store(a, out.data());
    store(vectors, out.data() + n * r * element());
    return {n * r * element(), 0, indices, r * c * element()};
  }

  // out = x * 2^-exponent, the largest of it in [1/2, 1). Returns the exponent.
  static int scale_to_one(std::span<const float> x, std::span<float> out) {
    float largest = 0;
    for (const float value : x) largest = std::max(largest, std::fabs(value));
    int exponent = 0;
    std::frexp(largest, &exponent);
    for (std::size_t i = 0; i < x.size(); ++i) out[i] = std::ldexp(x[i], -exponent);
    return exponent;
  }

  // Eigenvalues of the Gram matrix are the squared singular values; rounding may leave small negative ones.
  [[nodiscard]] std::uint64_t rank_for_energy(std::span<const float> ascending) const {
    double total = 0;
    for (const float value : ascending) total += std::max(0.0F, value);
    double sum = 0;
    std::uint64_t r = 0;
    while (r < ascending.size() && sum < energy * total) {
      sum += std::max(0.0F, ascending[ascending.size() - 1 - r]);
      ++r;
    }
    return r;
  }

  // LAPACK's eigenvectors are contiguous, smallest first.
  [[nodiscard]] std::span<float> largest_first(std::span<const float> g, std::uint64_t r,
                                               kvlab::Scratch& scratch) const {
    const std::uint64_t c = head_dim();
    const auto vectors = scratch.take<float>(r * c);
    for (std::uint64_t j = 0; j < r; ++j) {
      std::copy_n(g.begin() + static_cast<std::ptrdiff_t>((c - 1 - j) * c), c,
                  vectors.begin() + static_cast<std::ptrdiff_t>(j * c));
    }
    return vectors;
  }

  // Rounded, and at most the largest finite value.
  void store(std::span<const float> from, std::uint8_t* out) const {
    for (std::size_t i = 0; i < from.size(); ++i) {
      if (factor_dtype == FactorDtype::f32) {
        const float value = std::clamp(from[i], -largest_f32, largest_f32);
        std::memcpy(out + 4 * i, &value, 4);
        continue;
      }
      const std::uint16_t bits = factor_dtype == FactorDtype::f16 ? kvlab::f32_to_f16_saturated(from[i])
                                                                  : kvlab::f32_to_bf16_saturated(from[i]);
      std::memcpy(out + 2 * i, &bits, 2);
    }
  }

  // ---- decode ------------------------------------------------------------------------------------------------------

  void load(const std::uint8_t* from, std::span<float> out) const {
    if (factor_dtype == FactorDtype::f32) {
      std::memcpy(out.data(), from, out.size_bytes());
      return;
    }
    for (std::size_t i = 0; i < out.size(); ++i) {
      std::uint16_t bits = 0;
      std::memcpy(&bits, from + 2 * i, 2);
      out[i] = factor_dtype == FactorDtype::f16 ? kvlab::f16_to_f32(bits) : kvlab::bf16_to_f32(bits);
    }
  }

  void decode(const kvlab::Block& in, std::uint64_t first, std::uint64_t count, kvlab::Rows rows,
              kvlab::Scratch scratch) const {
    const std::uint64_t n = in.tokens;
    const std::uint64_t c = head_dim();
    std::uint64_t r = std::min({rank, n, c});
    if (stores_rank()) {
      std::uint16_t stored = 0;
      std::memcpy(&stored, in.bytes + in.size - 2, 2);
      r = stored;
    }
    if (stores_itself(n, r)) {
      for (std::uint64_t t = 0; t < count; ++t) load(in.bytes + (first + t) * c * element(), {rows[t], c});
      return;
    }
    const auto vectors = scratch.take<float>(r * c);
    const auto coefficients = scratch.take<float>(r);
    load(in.bytes + n * r * element(), vectors);
    for (std::uint64_t t = 0; t < count; ++t) {
      load(in.bytes + (first + t) * r * element(), coefficients);
      std::fill_n(rows[t], c, 0.0F);
      for (std::uint64_t j = 0; j < r; ++j) {
        for (std::uint64_t i = 0; i < c; ++i) rows[t][i] += coefficients[j] * vectors[j * c + i];
      }
    }
  }
};

}  // namespace
}  // namespace low_rank

KVLAB_PLUGIN(low_rank::LowRank)
