// Truncated SVD of each block (Eckart and Young, 1936; for KV caches Palu, arXiv 2407.21118): X ~ A V^T with V the
// right singular vectors and A = X V. The definition is in README.md.
//
//   factors   A [n][r] | V^T [r][c]  in factor_dtype, | r u16 where `energy` chose it
//   itself    X [n][c]               in factor_dtype, | r u16 where `energy` chose it
#include <kvlab/plugin.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <string>

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
      .version = "1.1.0",
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
    const std::uint64_t gram_path = kvlab::Scratch::size<float>(c * c) + kvlab::Scratch::size<float>(c) +
                                    kvlab::Scratch::size<float>(eigen_work(c)) +
                                    kvlab::Scratch::size<int>(eigen_iwork(c));
    const std::uint64_t svd_path = kvlab::Scratch::size<float>(block * c) + kvlab::Scratch::size<float>(c * c) +
                                   kvlab::Scratch::size<float>(svd_work(block, c)) +
                                   kvlab::Scratch::size<int>(svd_iwork(block, c));
    return kvlab::Scratch::size<float>(block * c) * 3 + kvlab::Scratch::size<float>(c * c) + gram_path +
           (may_need_svd() ? svd_path : 0);
  }
  [[nodiscard]] std::uint64_t decode_scratch() const { return kvlab::Scratch::size<float>(tile * head_dim()); }
  [[nodiscard]] std::uint64_t attend_scratch() const { return kvlab::Scratch::size<float>(batch * head_dim()); }
  // A block's basis meets the queries once a call: short blocks are attended to whole.
  [[nodiscard]] bool whole_blocks() const { return block <= 4096; }

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
    if (!std::all_of(x.begin(), x.end(), [](float value) { return std::isfinite(value); })) {
      throw kvlab::InvalidArgument("a number of a block is not finite");
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
    std::span<const float> vectors = largest_first(g, r, scratch);
    if (may_need_svd() && r > 0 && ill_conditioned(eigenvalues, r)) vectors = by_svd(a, r, scratch);
    return store_block(x, a, exponent, vectors, r, scratch, out);
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
    // A row of A is as long as its row of X: up to sqrt(c) times its largest number, and then rounded.
    if (std::ldexp(std::sqrt(static_cast<double>(c)), exponent) > 0x1p127) {
      throw kvlab::Unsupported("numbers near the largest of f32: their factors are beyond it");
    }
    const auto a = scratch.take<float>(n * r);
    project(static_cast<int>(n), static_cast<int>(c), static_cast<int>(r), scaled.data(), vectors.data(), a.data());
    scale_by_power(a, exponent, a);
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
    scale_by_power(x, -exponent, out);
    return exponent;
  }

  // out = x * 2^exponent, in two steps: 2^exponent itself may be beyond f32.
  static void scale_by_power(std::span<const float> x, int exponent, std::span<float> out) {
    const float half = std::ldexp(1.0F, exponent / 2);
    const float rest = std::ldexp(1.0F, exponent - exponent / 2);
    for (std::size_t i = 0; i < x.size(); ++i) out[i] = x[i] * half * rest;
  }

  // The Gram matrix squares the condition number: in f32 it loses singular values below sqrt(2^-23) = 3.5e-4 of the
  // largest. At 1e-3 the error is 8 % above Eckart and Young's, at 3e-3 below 1 %: where the last one kept is below
  // that (a condition number above 316) the vectors come from a full SVD. Factors in bf16 are rounded by more than this
  // matters.
  [[nodiscard]] bool may_need_svd() const { return factor_dtype != FactorDtype::bf16; }
  static bool ill_conditioned(std::span<const float> ascending, std::uint64_t r) {
    return ascending[ascending.size() - r] < 1e-5F * ascending.back();
  }
  [[nodiscard]] std::span<const float> by_svd(std::span<const float> x, std::uint64_t r,
                                              kvlab::Scratch& scratch) const {
    const std::uint64_t c = head_dim();
    const std::uint64_t n = x.size() / c;
    const auto copy = scratch.take<float>(n * c);
    std::copy(x.begin(), x.end(), copy.begin());
    const auto vectors = scratch.take<float>(c * c);
    right_singular_vectors(static_cast<int>(n), static_cast<int>(c), copy.data(), vectors.data(),
                           scratch.take<float>(svd_work(n, c)), scratch.take<int>(svd_iwork(n, c)));
    return vectors.first(r * c);
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

  // Where a block's parts lie, as rows for the host's kernels.
  struct Factors {
    std::uint64_t rank;
    bool itself;
    kvlab_rows rows;   // A [n][r], or X [n][c]
    kvlab_rows basis;  // V^T [r][c]
  };
  [[nodiscard]] Factors factors_of(const kvlab::Block& in, std::uint64_t first, std::uint64_t count) const {
    const std::uint64_t n = in.tokens;
    const std::uint64_t c = head_dim();
    Factors f{};
    f.rank = std::min({rank, n, c});
    if (stores_rank()) {
      if (in.size < 2) throw kvlab::InvalidArgument("a damaged block of " + std::to_string(in.size) + " bytes");
      std::uint16_t stored = 0;
      std::memcpy(&stored, in.bytes + in.size - 2, 2);
      f.rank = stored;
    }
    f.itself = stores_itself(n, f.rank);
    const std::uint64_t size = (f.itself ? n * c : f.rank * (n + c)) * element() + (stores_rank() ? 2 : 0);
    if (size != in.size) {
      throw kvlab::InvalidArgument("a damaged block: rank " + std::to_string(f.rank) + " makes " +
                                   std::to_string(size) + " bytes, it has " + std::to_string(in.size));
    }
    const std::uint64_t width = f.itself ? c : f.rank;
    f.rows.base = in.bytes + first * width * element();
    f.rows.dtype = f.basis.dtype = dtype();
    f.rows.stride = f.rows.channels = width;
    f.rows.tokens = count;
    f.rows.ahead = in.ahead;
    f.rows.ahead_size = in.ahead_size;
    f.basis.base = in.bytes + n * width * element();
    f.basis.stride = f.basis.channels = c;
    f.basis.tokens = f.rank;
    return f;
  }
  [[nodiscard]] kvlab_dtype dtype() const {
    return factor_dtype == FactorDtype::f32 ? KVLAB_F32 : factor_dtype == FactorDtype::f16 ? KVLAB_F16 : KVLAB_BF16;
  }

  static constexpr std::uint64_t tile = 64;   // tokens decoded at a time
  static constexpr std::uint64_t batch = 16;  // queries at a time

  // Rows = A * V^T: each token's coefficients weigh the rows of the basis.
  void decode(const kvlab::Block& in, std::uint64_t first, std::uint64_t count, kvlab::Rows rows,
              kvlab::Scratch scratch) const {
    const std::uint64_t c = head_dim();
    const Factors f = factors_of(in, first, count);
    const auto* base = static_cast<const std::uint8_t*>(f.rows.base);
    if (f.itself) {
      for (std::uint64_t t = 0; t < count; ++t) load(base + t * c * element(), {rows[t], c});
      return;
    }
    const auto coefficients = scratch.take<float>(tile * c);
    for (std::uint64_t done = 0; done < count; done += tile) {
      const std::uint64_t now = std::min(tile, count - done);
      load(base + done * f.rank * element(), coefficients.first(now * f.rank));
      for (std::uint64_t t = 0; t < now; ++t) std::fill_n(rows[done + t], c, 0.0F);
      multiply(f.basis, coefficients.data(), now, {rows[done], rows.stride});
    }
  }

  // What is decoded is the same to the last bit whatever the instruction set. Products of 16-bit factors are exact in
  // f32, so that it does not matter whether a kernel fuses them with the addition; those of f32 are not.
  void multiply(const kvlab_rows& basis, const float* coefficients, std::uint64_t tokens, kvlab::Rows rows) const {
    if (factor_dtype != FactorDtype::f32) {
      host->sums(&basis, coefficients, basis.tokens, tokens, rows.base, rows.stride);
      return;
    }
    for (std::uint64_t t = 0; t < tokens; ++t) {
      float* row = rows[t];
      for (std::uint64_t j = 0; j < basis.tokens; ++j) {
        const float weight = coefficients[t * basis.tokens + j];
        const float* vector = static_cast<const float*>(basis.base) + j * basis.stride;
        for (std::uint64_t c = 0; c < basis.channels; ++c) row[c] += weight * vector[c];
      }
    }
  }

  // The kept rows of A, or of X, and the same basis. Too few tokens would be held another way.
  kvlab_parts gather(const kvlab::Block& in, std::span<const std::uint32_t> keep, std::span<std::uint8_t> out,
                     kvlab::Scratch /*scratch*/) const {
    const std::uint64_t n = keep.size();
    const Factors f = factors_of(in, 0, in.tokens);
    const std::uint64_t r_here = stores_rank() ? f.rank : std::min({rank, n, head_dim()});
    if (r_here != f.rank || stores_itself(n, f.rank) != f.itself) {
      throw kvlab::Unsupported("so few tokens are held another way");
    }
    const std::uint64_t row = f.rows.stride * element();
    const auto* rows = static_cast<const std::uint8_t*>(f.rows.base);
    for (std::uint64_t t = 0; t < n; ++t) std::memcpy(out.data() + t * row, rows + keep[t] * row, row);
    const std::uint64_t basis = f.itself ? 0 : f.rank * head_dim() * element();
    std::memcpy(out.data() + n * row, f.basis.base, basis);
    const std::uint64_t indices = stores_rank() ? 2 : 0;
    if (stores_rank()) std::memcpy(out.data() + n * row + basis, in.bytes + in.size - 2, 2);
    return {n * row, 0, indices, basis};
  }

  // ---- attention in the space of the factors
  // ------------------------------------------------------------------------- q . (V a_t) = (V^T q) . a_t, and sum of
  // w_t V a_t = V (sum of w_t a_t): r numbers per token instead of c.

  [[nodiscard]] std::uint64_t prepared_bytes(std::uint64_t queries) const {
    return queries * head_dim() * sizeof(float);
  }
  void prepare(std::uint32_t /*kv_head*/, const float* queries, std::uint64_t count, void* prepared,
               kvlab::Scratch /*scratch*/) const {
    std::memcpy(prepared, queries, count * head_dim() * sizeof(float));
  }
  void scores(const void* prepared, std::uint64_t queries, const kvlab::Block& block_in, std::uint64_t first,
              std::uint64_t count, kvlab::Rows out, kvlab::Scratch scratch) const {
    const std::uint64_t c = head_dim();
    Factors f = factors_of(block_in, first, count);
    const auto* query = static_cast<const float*>(prepared);
    if (f.itself) {
      host->dots(&f.rows, query, c, queries, out.base, out.stride);
      return;
    }
    if (f.rank == 0) {
      for (std::uint64_t q = 0; q < queries; ++q) std::fill_n(out[q], count, 0.0F);
      return;
    }
    const auto turned = scratch.take<float>(batch * c);
    for (std::uint64_t q = 0; q < queries; q += batch) {
      const std::uint64_t now = std::min(batch, queries - q);
      host->dots(&f.basis, query + q * c, c, now, turned.data(), f.rank);
      host->dots(&f.rows, turned.data(), f.rank, now, out[q], out.stride);
      f.rows.ahead_size = 0;
    }
  }

  [[nodiscard]] std::uint64_t width() const { return head_dim(); }
  void accumulate(const float* weights, std::uint64_t queries, std::uint64_t weight_stride,
                  const kvlab::Block& block_in, std::uint64_t first, std::uint64_t count, float* accumulator,
                  kvlab::Scratch scratch) const {
    const std::uint64_t c = head_dim();
    Factors f = factors_of(block_in, first, count);
    if (f.itself) {
      host->sums(&f.rows, weights, weight_stride, queries, accumulator, c);
      return;
    }
    if (f.rank == 0) return;
    const auto summed = scratch.take<float>(batch * c);
    for (std::uint64_t q = 0; q < queries; q += batch) {
      const std::uint64_t now = std::min(batch, queries - q);
      std::fill_n(summed.data(), now * f.rank, 0.0F);
      host->sums(&f.rows, weights + q * weight_stride, weight_stride, now, summed.data(), f.rank);
      host->sums(&f.basis, summed.data(), f.rank, now, accumulator + q * c, c);
      f.rows.ahead_size = 0;
    }
  }
  void finish(std::uint32_t /*kv_head*/, const float* accumulator, std::uint64_t queries, float* rows,
              kvlab::Scratch /*scratch*/) const {
    std::memcpy(rows, accumulator, queries * head_dim() * sizeof(float));
  }
};

}  // namespace
}  // namespace low_rank

KVLAB_PLUGIN(low_rank::LowRank)
