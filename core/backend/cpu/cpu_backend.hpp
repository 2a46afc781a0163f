// The host as a backend: its memory in huge pages, a pool of threads, one thread that encodes while decoding goes on.
#pragma once

#include "core/backend/backend.hpp"
#include "core/backend/cpu/background.hpp"
#include "core/base/memory.hpp"
#include "core/base/thread_pool.hpp"

namespace kvlab {

class CpuBackend : public Backend {
 public:
  // 0: a thread per core that this process may run on.
  explicit CpuBackend(std::size_t threads = 0) : pool_(threads) {}

  [[nodiscard]] MemoryResource& memory() override { return host_memory(); }

  void run(std::span<Work* const> works, Arena& arena) override;
  void attend(const AttendBatch& batch) override;
  void expand(std::span<const ExpandTask> tasks) override;
  void run(std::span<const std::shared_ptr<Encoding>> encodings, Arena& arena) override;
  void synchronize() override {}  // run() returns when all is done

  void defer(const std::shared_ptr<Encoding>& encoding, Arena& arena) override;
  void quiesce() override { background_.quiesce(); }

  void read(const Role& role, std::uint32_t kv_head, const Segment& segment, const PositionsView& positions,
            std::uint64_t first, std::uint64_t count, float* rows) override;
  void read(const std::byte* from, void* to, std::size_t bytes) override;

  void each(std::size_t count, const std::function<void(std::size_t index, std::size_t thread)>& body) override {
    pool_.parallel_for(count, body);
  }
  [[nodiscard]] std::size_t threads() const override { return pool_.threads(); }

  [[nodiscard]] double now() override;
  PeakBandwidth measure_peak_bandwidth(std::size_t most) override;

 protected:
  // Where it encodes in the background: what surrounds each block.
  [[nodiscard]] virtual Encoding::Encode encode_into(Arena& arena);

 private:
  ThreadPool pool_;
  cpu::Background background_;
};

}  // namespace kvlab
