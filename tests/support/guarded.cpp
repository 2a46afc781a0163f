#include "tests/support/guarded.hpp"

#include <sys/mman.h>

#include <stdexcept>
#include <utility>

namespace kvlab::test {

class GuardedBackend::Memory::GuardedRegion : public Region {
 public:
  GuardedRegion(Mapping mapping, Memory& memory)
      : Region(mapping.data(), mapping.size()), mapping_(std::move(mapping)), memory_(memory) {}
  ~GuardedRegion() override {
    const std::lock_guard lock(memory_.mutex_);
    memory_.regions_.erase(this);
  }

 private:
  Mapping mapping_;
  Memory& memory_;
};

std::unique_ptr<Region> GuardedBackend::Memory::map(std::size_t bytes) {
  auto region = std::make_unique<GuardedRegion>(Mapping(bytes), *this);
  const std::lock_guard lock(mutex_);
  regions_.insert(region.get());
  if (open_ == 0) protect(PROT_NONE);
  return region;
}

void GuardedBackend::Memory::protect(int how) {
  for (const Region* region : regions_) {
    if (mprotect(region->data(), region->size(), how) != 0) throw std::runtime_error("mprotect");
  }
}

void GuardedBackend::Memory::open() {
  const std::lock_guard lock(mutex_);
  if (open_++ == 0) protect(PROT_READ | PROT_WRITE);
}

void GuardedBackend::Memory::close() {
  const std::lock_guard lock(mutex_);
  if (--open_ == 0) protect(PROT_NONE);
}

void GuardedBackend::run(std::span<Work* const> works, Arena& arena) {
  const Open open(memory_);
  CpuBackend::run(works, arena);
}

void GuardedBackend::attend(const AttendBatch& batch) {
  const Open open(memory_);
  CpuBackend::attend(batch);
}

void GuardedBackend::expand(std::span<const ExpandTask> tasks) {
  const Open open(memory_);
  CpuBackend::expand(tasks);
}

void GuardedBackend::read(const Role& role, std::uint32_t kv_head, const Segment& segment,
                          const PositionsView& positions, std::uint64_t first, std::uint64_t count, float* rows) {
  const Open open(memory_);
  CpuBackend::read(role, kv_head, segment, positions, first, count, rows);
}

void GuardedBackend::read(const std::byte* from, void* to, std::size_t bytes) {
  const Open open(memory_);
  CpuBackend::read(from, to, bytes);
}

Encoding::Encode GuardedBackend::encode_into(Arena& arena) {
  return [this, encode = CpuBackend::encode_into(arena)](EncodeTask& task, const Work& work) {
    const Open open(memory_);
    encode(task, work);
  };
}

}  // namespace kvlab::test
