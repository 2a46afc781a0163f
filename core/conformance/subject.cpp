#include "core/conformance/subject.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace kvlab::conformance {

LayerShape layer_shape(Dtype dtype, std::uint32_t head_dim) {
  LayerShape shape;
  shape.query_heads = 2;
  shape.head_dim_keys = head_dim;
  shape.head_dim_values = head_dim;
  shape.dtype = dtype;
  shape.attention_scale = 1 / std::sqrt(static_cast<double>(head_dim));
  shape.seed = 7;
  return shape;
}

EncodedBlock make_block(std::span<const std::uint8_t> bytes, std::uint64_t tokens) {
  EncodedBlock made{Guarded(bytes.size() + KVLAB_READABLE), {}};
  std::copy(bytes.begin(), bytes.end(), made.memory.as<std::uint8_t>());
  made.memory.protect();
  made.block.struct_size = sizeof made.block;
  made.block.heads = 1;
  made.block.bytes = made.memory.as<std::uint8_t>();
  made.block.size = bytes.size();
  made.block.tokens = tokens;
  return made;
}

CodecSubject::CodecSubject(const MethodSpec& spec, const LayerShape& shape, std::uint32_t role)
    : codec_(spec, shape.describe(role)),
      role_(role),
      channels_(role == KVLAB_ROLE_KEYS ? shape.head_dim_keys : shape.head_dim_values),
      dtype_(shape.dtype) {}

EncodedBlock CodecSubject::encode(const Tokens& tokens, std::uint64_t stride, std::uint32_t flags) const {
  const StoredTokens stored(tokens, stride);
  const Guarded scratch = Guarded::scratch(codec_.traits().encode_scratch);
  const Guarded bytes(codec_.bound(tokens.count));
  kvlab_encode_in in{};
  in.struct_size = sizeof in;
  in.view = stored.view();
  in.scratch = scratch.as<void>();
  kvlab_encode_out out{};
  out.struct_size = sizeof out;
  out.flags = flags;
  out.bytes = bytes.as<std::uint8_t>();
  out.capacity = bytes.size();
  codec_.encode(in, out);
  bytes.expect_untouched_beside("encode");
  scratch.expect_untouched_beside("encode (scratch)");
  return make_block({out.bytes, out.size}, tokens.count);
}

std::vector<float> CodecSubject::decode(const kvlab_block& block, std::uint64_t first, std::uint64_t count) const {
  const std::uint64_t stride = channels_ + 3;  // rows apart: what lies between is not the codec's
  constexpr float between = 1234.5F;
  const Guarded scratch = Guarded::scratch(codec_.traits().decode_scratch);
  const Guarded memory(((count - 1) * stride + channels_) * sizeof(float), sizeof(float));
  const std::span<float> spaced(memory.as<float>(), memory.size() / sizeof(float));
  std::fill(spaced.begin(), spaced.end(), between);
  codec_.decode(block, first, count, spaced.data(), stride, scratch.as<void>());
  memory.expect_untouched_beside("decode");
  scratch.expect_untouched_beside("decode (scratch)");
  std::vector<float> rows;
  for (std::uint64_t i = 0; i < spaced.size(); ++i) {
    if (i % stride < channels_) {
      rows.push_back(spaced[i]);
    } else if (spaced[i] != between) {
      throw Failure("decode wrote between its rows");
    }
  }
  return rows;
}

std::optional<EncodedBlock> CodecSubject::gather(const kvlab_block& block, std::span<const std::uint32_t> keep) const {
  const Guarded scratch = Guarded::scratch(codec_.traits().encode_scratch);
  const Guarded bytes(codec_.bound(keep.size()));
  kvlab_encode_out out{};
  out.struct_size = sizeof out;
  out.bytes = bytes.as<std::uint8_t>();
  out.capacity = bytes.size();
  if (!codec_.gather(block, keep, out, scratch.as<void>())) return {};
  bytes.expect_untouched_beside("gather");
  return make_block({out.bytes, out.size}, keep.size());
}

std::vector<float> CodecSubject::scores(const std::vector<float>& queries, const kvlab_block& block,
                                        std::uint64_t first, std::uint64_t count) const {
  const std::uint64_t number = queries.size() / channels_;
  const Guarded scratch = Guarded::scratch(codec_.traits().attend_scratch);
  Guarded given(queries.size() * sizeof(float), sizeof(float));
  std::copy(queries.begin(), queries.end(), given.as<float>());
  given.protect();
  const Guarded prepared(codec_.prepared_bytes(number));
  codec_.prepare(0, given.as<float>(), number, prepared.as<void>(), scratch.as<void>());
  prepared.expect_untouched_beside("prepare");
  const Guarded scores(number * count * sizeof(float), sizeof(float));
  codec_.scores(prepared.as<void>(), number, block, first, count, scores.as<float>(), count, scratch.as<void>());
  scores.expect_untouched_beside("scores");
  return {scores.as<float>(), scores.as<float>() + number * count};
}

std::vector<float> CodecSubject::weighted(const std::vector<float>& weights, const kvlab_block& block,
                                          std::uint64_t first, std::uint64_t count) const {
  const std::uint64_t number = weights.size() / count;
  const Guarded scratch = Guarded::scratch(codec_.traits().attend_scratch);
  Guarded given(weights.size() * sizeof(float), sizeof(float));
  std::copy(weights.begin(), weights.end(), given.as<float>());
  given.protect();
  Guarded accumulator(number * codec_.width() * sizeof(float));
  std::fill_n(accumulator.as<float>(), number * codec_.width(), 0.0F);
  codec_.accumulate(given.as<float>(), number, count, block, first, count, accumulator.as<float>(), scratch.as<void>());
  accumulator.expect_untouched_beside("accumulate");
  accumulator.protect();
  const Guarded rows(number * channels_ * sizeof(float), sizeof(float));
  codec_.finish(0, accumulator.as<float>(), number, rows.as<float>(), scratch.as<void>());
  rows.expect_untouched_beside("finish");
  return {rows.as<float>(), rows.as<float>() + number * channels_};
}

}  // namespace kvlab::conformance
