// The compressed KV cache of one layer for a batch of sequences.
//
// prefill() runs the pipeline on every (sequence, KV head) pair: selectors drop tokens, what is left between sinks and
// tail is encoded in blocks. The heads may keep different numbers of tokens. attend() and decompress() read what
// bytes() counts and nothing else: there is no copy of the original.
//
// Threads: one call at a time on an object; each call spreads its heads over the pool.
// Errors: InputError for shapes and budgets that do not fit, MethodError for a method that fails, std::bad_alloc.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "core/base/memory.hpp"
#include "core/base/thread_pool.hpp"
#include "core/cache/head.hpp"
#include "core/cache/layer.hpp"
#include "core/cache/pipeline.hpp"

namespace kvlab {

// One role's part of a layer: its codec, or none, and the shape of a token.
struct Role {
  std::optional<CodecInstance> codec;
  Dtype dtype;
  std::uint64_t channels;

  [[nodiscard]] std::uint64_t row_bytes() const { return channels * size_of(dtype); }
};

// Scratch of one thread.
struct Workspace {
  Buffer rows;
  Buffer more_rows;
  Buffer encoded;
  Buffer codec_scratch;
  Buffer floats;
  Buffer prepared;
  Buffer accumulators;
  std::vector<std::uint32_t> positions;
  std::vector<std::uint32_t> kept;
  std::vector<std::uint32_t> survivors;
};

class LayerCache {
 public:
  LayerCache(const Pipeline& pipeline, const LayerShape& shape);

  [[nodiscard]] const LayerShape& shape() const { return shape_; }

  // Replaces what the cache held; a second prefill of the same size finds its memory warm.
  void prefill(const Prefill& input, ThreadPool& pool);

  // o = softmax(scale q k̂) v̂ over the kept tokens, in a layer with window W over those at positions > p - W, by
  // online softmax, all query heads of a KV head in one pass. Queries attend to the whole prefill: their positions
  // are at or after its end. out: f32 [batch, query_head, query, head_dim_values]; 0 where nothing is left.
  void attend(const QueryTensor& queries, float* out, ThreadPool& pool);

  // All tokens in the workload's dtype at their positions, [batch, kv_head, token, channel] contiguous; dropped 0.
  void decompress(void* keys, void* values, ThreadPool& pool);

  // Without the codecs' own state: see total_bytes.
  [[nodiscard]] Bytes bytes() const;
  [[nodiscard]] std::uint64_t requested_bytes() const { return arena_.requested(); }  // asked of the allocator
  [[nodiscard]] std::uint64_t reserved_bytes() const { return arena_.reserved(); }    // held by it

  [[nodiscard]] const Head& head(std::uint64_t sequence, std::uint32_t kv_head) const {
    return heads_[sequence * shape_.kv_heads + kv_head];
  }
  [[nodiscard]] const Role& keys() const { return keys_; }
  [[nodiscard]] const Role& values() const { return values_; }

  // f32 rows of the kept tokens [first, first + count) within one segment, contiguous. The range is aligned to the
  // codec's granule.
  static void decode(const Role& role, const Head& head, std::uint32_t kv_head, const Segment& segment,
                     std::uint64_t first, std::uint64_t count, float* rows, Workspace& workspace);

 private:
  LayerShape shape_;
  Pipeline pipeline_;
  std::vector<SelectorInstance> selectors_;  // one a step of the pipeline
  Role keys_;
  Role values_;
  std::uint64_t tokens_ = 0;
  std::vector<Head> heads_;
  Arena arena_;
  std::vector<Workspace> workspaces_;  // a thread

  // Work of attend(), kept to be warm.
  struct AttendPart {
    std::size_t head;
    std::uint64_t index;
    std::uint64_t of;
  };
  std::vector<AttendPart> attend_parts_;
  Buffer part_memory_;
  Buffer parts_left_;
};

// The bytes of a model's layers: the sum, and each codec state once where instances share it.
Bytes total_bytes(std::span<const std::unique_ptr<LayerCache>> layers);

// How many tokens of a segment are decoded or attended to at a time: aligned to the codec's granule, small enough
// for the f32 rows to stay in the first-level cache.
std::uint64_t tile_tokens(const Role& role, const Segment& segment);

// The block as the ABI describes it.
kvlab_block block_of(const Head& head, std::uint32_t kv_head, const Segment& segment,
                     std::vector<std::uint32_t>& scratch);

}  // namespace kvlab
