#include "core/cache/manager.hpp"

#include <algorithm>
#include <string>

namespace kvlab {

CacheManager::CacheManager(const Pipeline& pipeline, std::span<const LayerShape> layers, const CacheOptions& options)
    : memory_(std::make_shared<CacheMemory>(options.budget)) {
  for (const auto& shape : layers) {
    if (shape.batch != layers.front().batch) {
      throw InputError("layer " + std::to_string(shape.layer) + " has batch " + std::to_string(shape.batch) +
                       ", the first has " + std::to_string(layers.front().batch));
    }
    layers_.push_back(std::make_unique<LayerCache>(pipeline, shape, memory_, options.decodes));
  }
}

std::uint32_t CacheManager::add() {
  std::uint32_t slot = 0;
  for (const auto& layer : layers_) slot = layer->add();
  return slot;
}

std::uint32_t CacheManager::fork(std::uint32_t sequence) {
  std::uint32_t slot = 0;
  for (const auto& layer : layers_) slot = layer->fork(sequence);
  return slot;
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
  std::vector<std::uint64_t> shared;
  for (const auto& layer : layers_) {
    sum += layer->bytes();
    for (const Role* role : {&layer->keys(), &layer->values()}) {
      if (!role->codec) continue;
      const kvlab_codec_traits& traits = role->codec->traits();
      if (traits.state_key != 0) {
        if (std::find(shared.begin(), shared.end(), traits.state_key) != shared.end()) continue;
        shared.push_back(traits.state_key);
      }
      sum.bases += traits.state_bytes;
    }
  }
  return sum;
}

}  // namespace kvlab
