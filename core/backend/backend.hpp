// A place where caches live and are worked on: its memory, and the execution of what bookkeeping asks for (work.hpp).
// One is made per program and outlives all caches that were made with it; core/backend/cpu is the first.
//
// Threads: any thread may call; batches of several callers take turns. Errors: the first of a batch is thrown by run()
// or, where a backend works on after run() has returned, by the next synchronize().
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "core/backend/work.hpp"
#include "core/memory/resource.hpp"

namespace kvlab {

struct PeakBandwidth {
  double read;  // B/s: reading once, all threads
  double copy;  // B/s: bytes read plus bytes written
};

class Backend {
 public:
  virtual ~Backend() = default;

  [[nodiscard]] virtual MemoryResource& memory() = 0;

  // ---- batches -----------------------------------------------------------------------------------------------------

  // Blocks whose size is not known before take their memory of `arena`. The works stay as they are until
  // synchronize().
  virtual void run(std::span<Work* const> works, Arena& arena) = 0;
  virtual void attend(const AttendBatch& batch) = 0;
  virtual void expand(std::span<const ExpandTask> tasks) = 0;
  // Encodings that someone waits for now; returns when they are ready, or another thread has them ready.
  virtual void run(std::span<const std::shared_ptr<Encoding>> encodings, Arena& arena) = 0;
  // Returns when all that was asked for before is done.
  virtual void synchronize() = 0;

  // ---- while decoding goes on --------------------------------------------------------------------------------------

  // In order of arrival; one whose owners are gone by then is left out.
  virtual void defer(const std::shared_ptr<Encoding>& encoding, Arena& arena) = 0;
  // Returns when nothing deferred is under way that has no owner but this: what it refers to may go then.
  virtual void quiesce() = 0;

  // ---- what the host sees ------------------------------------------------------------------------------------------

  // f32 rows of tokens [first, first + count) of a segment, contiguous in host memory. The range is aligned to the
  // codec's granule.
  virtual void read(const Role& role, std::uint32_t kv_head, const Segment& segment, const PositionsView& positions,
                    std::uint64_t first, std::uint64_t count, float* rows) = 0;
  virtual void read(const std::byte* from, void* to, std::size_t bytes) = 0;

  // Work of the host's own, spread over its threads: body(index, thread) for each index below `count`, thread below
  // threads(). The first exception is thrown after the others have finished. A body must not call the backend's
  // batches.
  virtual void each(std::size_t count, const std::function<void(std::size_t index, std::size_t thread)>& body) = 0;
  [[nodiscard]] virtual std::size_t threads() const = 0;

  // Seconds since some moment, when all that was asked for before is done.
  [[nodiscard]] virtual double now() = 0;
  // The best of several passes over memory far larger than any cache: 512 MiB, less where `most` is.
  virtual PeakBandwidth measure_peak_bandwidth(std::size_t most) = 0;
};

}  // namespace kvlab
