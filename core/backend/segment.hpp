// What stands of one role (keys or values) of one head: a table of segments, each raw rows or a block of a codec.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/memory/arena.hpp"
#include "core/method/instance.hpp"
#include "core/pipeline/layer_shape.hpp"
#include "core/pipeline/pipeline.hpp"
#include "core/pipeline/tensors.hpp"

namespace kvlab {

// Bytes of a cache, broken down as the result file reports them. The table of segments is not counted.
struct Bytes {
  std::uint64_t payload = 0;
  std::uint64_t scales = 0;
  std::uint64_t indices = 0;
  std::uint64_t bases = 0;
  std::uint64_t uncompressed = 0;  // sinks, tail, and roles with no codec

  [[nodiscard]] std::uint64_t total() const { return payload + scales + indices + bases + uncompressed; }
  Bytes& operator+=(const Bytes& other) {
    payload += other.payload;
    scales += other.scales;
    indices += other.indices;
    bases += other.bases;
    uncompressed += other.uncompressed;
    return *this;
  }
};

class Encoding;

// A slot is a place of a head's tokens, in order; evicted tokens inside of blocks keep theirs (core/head/head.hpp).
struct Segment {
  std::uint64_t first = 0;  // slot
  std::uint64_t tokens = 0;
  std::uint64_t capacity = 0;       // tokens that it may grow to; a block's are its own
  const std::byte* data = nullptr;  // backend memory; raw: rows in the layer's dtype; else a block of the codec
  std::uint64_t size = 0;
  bool encoded = false;
  std::uint8_t rung = 0;  // whose codec encoded it
  Bytes bytes;            // `size`, broken down
  std::shared_ptr<Piece> piece;
  const Encoding* encoding = nullptr;  // the one that will take its place

  [[nodiscard]] std::uint64_t end() const { return first + tokens; }
};

// What all heads of a layer have in common of a role. It outlives what refers to it.
struct Role {
  std::uint32_t which;                      // KVLAB_ROLE_KEYS or _VALUES
  std::vector<CodecInstance> codecs;        // one per rung of the pipeline; none: raw
  std::vector<std::uint64_t> block_tokens;  // of each codec
  Dtype dtype;
  std::uint64_t channels;

  [[nodiscard]] bool coded() const { return !codecs.empty(); }
  [[nodiscard]] const CodecInstance& codec(const Segment& block) const { return codecs[block.rung]; }
  [[nodiscard]] std::uint64_t row_bytes() const { return channels * size_of(dtype); }
  // Raw ones side by side.
  [[nodiscard]] TokenRows rows(const std::byte* base) const {
    return {base, static_cast<std::int64_t>(row_bytes()), dtype};
  }
};

// `which` is KVLAB_ROLE_KEYS or _VALUES. Throws InputError and MethodError as instances do.
Role make_role(const Pipeline& pipeline, const LayerShape& shape, std::uint32_t which,
               const kvlab_host& host = host_with(chosen_isa()));

}  // namespace kvlab
