// A backend whose memory the host may not touch: its pages have no access but while it works on them. It is the CPU's
// otherwise, so that all tests of the cache run on it: what bookkeeping reads or writes by itself crashes.
#pragma once

#include <memory>
#include <mutex>
#include <set>

#include "core/backend/cpu/cpu_backend.hpp"

namespace kvlab::test {

class GuardedBackend : public CpuBackend {
 public:
  explicit GuardedBackend(std::size_t threads) : CpuBackend(threads) {}

  [[nodiscard]] MemoryResource& memory() override { return memory_; }
  void run(std::span<Work* const> works, Arena& arena) override;
  using CpuBackend::run;  // encodings: each block opens the memory for itself
  void attend(const AttendBatch& batch) override;
  void expand(std::span<const ExpandTask> tasks) override;
  void read(const Role& role, std::uint32_t kv_head, const Segment& segment, const PositionsView& positions,
            std::uint64_t first, std::uint64_t count, float* rows) override;
  void read(const std::byte* from, void* to, std::size_t bytes) override;

 protected:
  [[nodiscard]] Encoding::Encode encode_into(Arena& arena) override;

 private:
  class Memory : public MemoryResource {
   public:
    std::unique_ptr<Region> map(std::size_t bytes) override;
    void open();
    void close();

   private:
    class GuardedRegion;
    void protect(int how);

    std::mutex mutex_;  // what is below
    std::set<const Region*> regions_;
    int open_ = 0;  // who works on it now
  };
  // Access as long as it lives.
  class Open {
   public:
    explicit Open(Memory& memory) : memory_(memory) { memory_.open(); }
    ~Open() { memory_.close(); }
    Open(const Open&) = delete;
    Open& operator=(const Open&) = delete;

   private:
    Memory& memory_;
  };

  Memory memory_;
};

}  // namespace kvlab::test
