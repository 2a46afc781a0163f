// A codec with each of its calls in guarded memory: outputs end at a page that must not be touched, inputs are read
// only, and a block may be read KVLAB_READABLE bytes beyond its size, no further.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "core/conformance/tokens.hpp"
#include "core/method/instance.hpp"
#include "core/pipeline/layer_shape.hpp"

namespace kvlab::conformance {

// A layer with one KV head and a group of two query heads.
LayerShape layer_shape(Dtype dtype, std::uint32_t head_dim);

struct EncodedBlock {
  Guarded memory;
  kvlab_block block{};
  [[nodiscard]] std::vector<std::uint8_t> bytes() const { return {block.bytes, block.bytes + block.size}; }
};

// Bytes as a block of that many tokens, from position 0 on.
EncodedBlock make_block(std::span<const std::uint8_t> bytes, std::uint64_t tokens);

class CodecSubject {
 public:
  // `role` is KVLAB_ROLE_KEYS or _VALUES. Throws MethodError as an instance does.
  CodecSubject(const MethodSpec& spec, const LayerShape& shape, std::uint32_t role);

  [[nodiscard]] const CodecInstance& codec() const { return codec_; }
  [[nodiscard]] std::uint64_t channels() const { return channels_; }
  [[nodiscard]] Dtype dtype() const { return dtype_; }
  [[nodiscard]] bool attends_keys() const { return role_ == KVLAB_ROLE_KEYS && codec_.attends_keys(); }
  [[nodiscard]] bool attends_values() const { return role_ == KVLAB_ROLE_VALUES && codec_.attends_values(); }

  [[nodiscard]] EncodedBlock encode(const Tokens& tokens, std::uint64_t stride, std::uint32_t flags = 0) const;
  [[nodiscard]] EncodedBlock encode(const Tokens& tokens) const { return encode(tokens, channels_); }
  // Rows of the tokens [first, first + count), aligned to the granule.
  [[nodiscard]] std::vector<float> decode(const kvlab_block& block, std::uint64_t first, std::uint64_t count) const;
  // Nothing where these tokens cannot be a block of their own.
  [[nodiscard]] std::optional<EncodedBlock> gather(const kvlab_block& block, std::span<const std::uint32_t> keep) const;
  // [queries, count]: of queries [queries, channels].
  [[nodiscard]] std::vector<float> scores(const std::vector<float>& queries, const kvlab_block& block,
                                          std::uint64_t first, std::uint64_t count) const;
  // [queries, channels]: of weights [queries, count].
  [[nodiscard]] std::vector<float> weighted(const std::vector<float>& weights, const kvlab_block& block,
                                            std::uint64_t first, std::uint64_t count) const;

 private:
  CodecInstance codec_;
  std::uint32_t role_;
  std::uint64_t channels_;
  Dtype dtype_;
};

}  // namespace kvlab::conformance
