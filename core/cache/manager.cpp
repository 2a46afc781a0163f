#include "core/cache/manager.hpp"

#include <algorithm>
#include <string>
#include <utility>

namespace kvlab {
namespace {

// A layer's part of a sequence's budget is its part of a token's raw bytes.
Pipeline share_of(const Pipeline& pipeline, std::span<const LayerShape> layers, const LayerShape& layer) {
  const auto raw = [](const LayerShape& shape) {
    return std::uint64_t{shape.kv_heads} * (shape.head_dim_keys + shape.head_dim_values) * size_of(shape.dtype);
  };
  std::uint64_t all = 0;
  for (const auto& shape : layers) all += raw(shape);
  Pipeline own = pipeline;
  own.bytes_per_sequence = static_cast<std::uint64_t>(static_cast<double>(pipeline.bytes_per_sequence) *
                                                      static_cast<double>(raw(layer)) / static_cast<double>(all));
  if (pipeline.bytes_per_sequence > 0) own.bytes_per_sequence = std::max<std::uint64_t>(1, own.bytes_per_sequence);
  return own;
}

}  // namespace

CacheManager::CacheManager(const Pipeline& pipeline, std::span<const LayerShape> layers, Backend& backend,
                           const CacheOptions& options)
    : memory_(std::make_shared<CacheMemory>(backend, options.budget)) {
  if (layers.empty()) throw InputError("there are no layers; valid: from 1");
  for (const auto& shape : layers) {
    if (shape.batch != layers.front().batch) {
      throw InputError("layer " + std::to_string(shape.layer) + " has batch " + std::to_string(shape.batch) +
                       ", the first has " + std::to_string(layers.front().batch));
    }
    layers_.push_back(std::make_unique<LayerCache>(share_of(pipeline, layers, shape), shape, memory_, options.decodes));
  }
}

const LayerCache& CacheManager::layer(std::size_t index) const {
  if (index >= layers_.size()) {
    throw InputError("there is no layer " + std::to_string(index) + "; valid: 0 .. " +
                     std::to_string(layers_.size() - 1));
  }
  return *layers_[index];
}

void CacheManager::flush() {
  for (const auto& layer : layers_) layer->flush();
}

std::uint32_t CacheManager::add() {
  std::uint32_t number = 0;
  for (const auto& layer : layers_) number = layer->add();
  return number;
}

std::uint32_t CacheManager::fork(std::uint32_t sequence) {
  std::uint32_t number = 0;
  for (const auto& layer : layers_) number = layer->fork(sequence);
  return number;
}

void CacheManager::clear(std::uint32_t sequence) {
  for (const auto& layer : layers_) layer->clear(sequence);
}

void CacheManager::remove(std::uint32_t sequence) {
  for (const auto& layer : layers_) layer->remove(sequence);
}

// The sum of the layers, and each codec state once where instances share it.
Bytes CacheManager::bytes() const {
  Bytes sum;
  std::vector<std::pair<const kvlab_descriptor*, std::uint64_t>> shared;  // a key is its method's own
  for (const auto& layer : layers_) {
    sum += layer->bytes();
    for (const Role* role : {&layer->layer().keys, &layer->layer().values}) {
      for (const auto& codec : role->codecs) {
        const kvlab_codec_traits& traits = codec.traits();
        if (traits.state_key != 0) {
          const auto state = std::pair(codec.method().descriptor, traits.state_key);
          if (std::find(shared.begin(), shared.end(), state) != shared.end()) continue;
          shared.push_back(state);
        }
        sum.bases += traits.state_bytes;
      }
    }
  }
  return sum;
}

}  // namespace kvlab
