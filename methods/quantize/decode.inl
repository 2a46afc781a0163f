// Rows of codes as f32: code * scale + zero, rounded after each; included by kernels.inl.

namespace {

// A row of codes as f32: code * scale + zero, rounded after each. Reads to KVLAB_READABLE past the row.
template <bool Signed>
KVLAB_SIMD void decode_row_of(const std::uint8_t* row, unsigned bits, std::uint64_t columns, std::uint64_t group,
                              const float* scales, const float* zeros, float* out) {
  for (std::uint64_t c = 0; c < columns; c += simd::floats) {
    I codes;
    if (bits == 8) {
      codes = Signed ? simd::widen_signed_32(row + c) : simd::widen_unsigned_32(row + c);
    } else {
      alignas(16) std::uint8_t bytes[16];
      unpack(row + c * bits / 8, bits, Signed, simd::floats, bytes);
      codes = Signed ? simd::widen_signed_32(bytes) : simd::widen_unsigned_32(bytes);
    }
    const std::uint64_t g = c / group;
    F y = simd::mul(simd::to_float(codes), simd::set1(scales[g]));
    if (zeros != nullptr) y = simd::add(y, simd::set1(zeros[g]));
    simd::store_first(out + c, y, static_cast<int>(least(columns - c, simd::floats)));
  }
}

// group a multiple of `floats`, or all columns.
void decode_row(const std::uint8_t* row, unsigned bits, bool is_signed, std::uint64_t columns, std::uint64_t group,
                const float* scales, const float* zeros, float* out) {
  if (is_signed) {
    decode_row_of<true>(row, bits, columns, group, scales, zeros, out);
  } else {
    decode_row_of<false>(row, bits, columns, group, scales, zeros, out);
  }
}

// 16 channels of up to 16 tokens as f32 rows, from 16 rows of unpacked codes.
void decode_channels(const std::uint8_t* bytes, bool is_signed, std::uint64_t tokens, const float* scales,
                     const float* zeros, float* rows, std::uint64_t row_stride) {
  alignas(16) std::uint8_t by_token[256];
  transpose_16(bytes, 16, by_token, 16);
  for (std::uint64_t t = 0; t < tokens; ++t) {
    for (std::uint64_t part = 0; part < 16; part += simd::floats) {
      const std::uint8_t* p = by_token + 16 * t + part;
      const I codes = is_signed ? simd::widen_signed_32(p) : simd::widen_unsigned_32(p);
      F y = simd::mul(simd::to_float(codes), simd::load(scales + part));
      if (zeros != nullptr) y = simd::add(y, simd::load(zeros + part));
      simd::store(rows + t * row_stride + part, y);
    }
  }
}

}  // namespace
