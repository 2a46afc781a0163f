#include "core/memory/resource.hpp"

#include <utility>

#include "core/base/memory.hpp"

namespace kvlab {
namespace {

class HostRegion : public Region {
 public:
  explicit HostRegion(Mapping mapping) : Region(mapping.data(), mapping.size()), mapping_(std::move(mapping)) {}

 private:
  Mapping mapping_;
};

class HostMemory : public MemoryResource {
 public:
  std::unique_ptr<Region> map(std::size_t bytes) override { return std::make_unique<HostRegion>(Mapping(bytes)); }
};

}  // namespace

MemoryResource& host_memory() {
  static HostMemory memory;
  return memory;
}

}  // namespace kvlab
