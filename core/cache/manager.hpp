// The KV cache of a model: all of its layers, for a batch of sequences that come, grow, fork and go.
//
//   CpuBackend backend;
//   CacheManager cache(pipeline, layers, backend, {.budget = std::uint64_t{8} << 30});
//   cache.prefill(layer, sequence, prompt);        // each layer in turn
//   cache.append(layer, sequences, keys, values);  // a step: the new token's keys and values,
//   cache.attend(layer, sequences, queries, out);  // then attention up to it
//
// A pipeline (core/pipeline/pipeline.hpp) says how it compresses; the same object runs every pipeline of an experiment.
// Sequences are numbered alike in all layers. Keys, values and queries are as the model's attention reads them, after
// RoPE. Query head h reads KV head h / (query_heads / kv_heads).
//
// Memory: one arena of huge pages for all layers, under a budget that holds for everything bytes() counts but the
// codecs' own state, padding included. What is given back is used again.
// Threads and errors: as LayerCache says; one call at a time.
#pragma once

#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "core/cache/layer_cache.hpp"

namespace kvlab {

struct CacheOptions {
  std::uint64_t budget = Arena::no_budget;  // bytes
  bool decodes = false;                     // tokens will be appended: selectors keep the scores that evicting needs
};

class CacheManager {
 public:
  // The layers' batch is how many empty sequences there are at first, the same in all. `backend`: where the cache
  // lives; it outlives this.
  CacheManager(const Pipeline& pipeline, std::span<const LayerShape> layers, Backend& backend,
               const CacheOptions& options = {});

  [[nodiscard]] std::size_t layers() const { return layers_.size(); }
  // By its place among the layers that it was made with, from 0. Throws InputError.
  [[nodiscard]] const LayerCache& layer(std::size_t index) const;
  [[nodiscard]] LayerCache& layer(std::size_t index) {
    return const_cast<LayerCache&>(std::as_const(*this).layer(index));
  }

  // ---- sequences, in all layers ------------------------------------------------------------------------------------

  std::uint32_t add();                         // an empty one
  std::uint32_t fork(std::uint32_t sequence);  // a new one with the same tokens; shares memory until it is written
  void clear(std::uint32_t sequence);
  void remove(std::uint32_t sequence);

  // ---- tokens, one layer at a time: LayerCache says what each does
  // ---------------------------------------------------

  void prefill(std::size_t layer, const Prefill& input) { this->layer(layer).prefill(input); }
  void prefill(std::size_t layer, std::uint32_t sequence, const Prefill& input) {
    this->layer(layer).prefill(sequence, input);
  }
  void append(std::size_t layer, std::span<const std::uint32_t> sequences, const KvTensor& keys,
              const KvTensor& values) {
    this->layer(layer).append(sequences, keys, values);
  }
  // Finishes what append() left to the background thread, in all layers.
  void flush();
  void attend(std::size_t layer, std::span<const std::uint32_t> sequences, const QueryTensor& queries, float* out) {
    this->layer(layer).attend(sequences, queries, out);
  }
  void decompress(std::size_t layer, void* keys, void* values) { this->layer(layer).decompress(keys, values); }

  // ---- memory ------------------------------------------------------------------------------------------------------

  // Of all layers, with the codecs' state; what forks share is counted once.
  [[nodiscard]] Bytes bytes() const;
  // What the arena holds for them, padding and the open ends of raw chunks included. Without the codecs' state.
  [[nodiscard]] std::uint64_t reserved_bytes() const { return memory_->arena.reserved(); }
  [[nodiscard]] std::uint64_t requested_bytes() const { return memory_->arena.requested(); }
  // Whose budget may be changed at any time.
  [[nodiscard]] Arena& arena() { return memory_->arena; }

 private:
  std::shared_ptr<CacheMemory> memory_;
  std::vector<std::unique_ptr<LayerCache>> layers_;
};

}  // namespace kvlab
