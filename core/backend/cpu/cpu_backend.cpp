#include "core/backend/cpu/cpu_backend.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>

#include "core/backend/cpu/attend.hpp"
#include "core/backend/cpu/blocks.hpp"
#include "core/backend/cpu/expand.hpp"
#include "core/backend/cpu/tasks.hpp"

namespace kvlab {
namespace {

// Less to copy or to look at than it takes to wake a thread.
bool is_small(std::span<Work* const> works) {
  constexpr std::uint64_t few_rows = 128;
  std::uint64_t rows = 0;
  for (const Work* work : works) {
    if (!work->encodes.empty() || !work->gathers.empty()) return false;
    for (const auto& task : work->checks) rows += task.count;
    for (const auto& task : work->copies) rows += work->sources[task.source].count;
    for (const auto& task : work->scores) rows += 2 * task.tokens;
  }
  return rows <= few_rows;
}

// Neighbours of one kind, which go to one thread: what a kernel fetches ahead is then its own next.
struct Turn {
  void (*take)(Work& work, std::size_t task, Arena& arena);
  Work* work;
  std::size_t first;
  std::size_t end;
};

void run_copy(Work& work, std::size_t i, Arena& /*arena*/) { cpu::copy(work.copies[i], work, cpu::workspace()); }
void run_score(Work& work, std::size_t i, Arena& /*arena*/) { cpu::score(work.scores[i], work, cpu::workspace()); }
void run_encode(Work& work, std::size_t i, Arena& arena) {
  cpu::encode(work.encodes[i], work, arena, cpu::workspace());
}
void run_gather(Work& work, std::size_t i, Arena& arena) {
  cpu::gather(work.gathers[i], work, arena, cpu::workspace());
}
void run_check(Work& work, std::size_t i, Arena& /*arena*/) { cpu::check(work.checks[i]); }

// The tasks of some works: where all is small each is run as it comes, else all together by run().
class Turns {
 public:
  Turns(ThreadPool& pool, bool small, Arena& arena) : pool_(pool), small_(small), arena_(arena) {}

  void add(std::span<Work* const> works, std::size_t (*count)(const Work&), void (*take)(Work&, std::size_t, Arena&)) {
    constexpr std::size_t per_thread = 16;
    constexpr std::size_t most_at_once = 16;
    std::size_t all = 0;
    for (const Work* work : works) all += count(*work);
    const std::size_t at_once =
        small_ ? all : std::clamp<std::size_t>(all / (per_thread * pool_.threads()), 1, most_at_once);
    for (Work* work : works) {
      const std::size_t size = count(*work);
      for (std::size_t first = 0; first < size; first += at_once) {
        const Turn turn{take, work, first, std::min(size, first + at_once)};
        small_ ? run(turn) : turns_.push_back(turn);
      }
    }
  }

  void run() {
    if (turns_.empty()) return;
    pool_.parallel_for(turns_.size(), [&](std::size_t i, std::size_t /*thread*/) { run(turns_[i]); });
    turns_.clear();
  }

 private:
  void run(const Turn& turn) {
    for (std::size_t task = turn.first; task < turn.end; ++task) turn.take(*turn.work, task, arena_);
  }

  ThreadPool& pool_;
  bool small_;
  Arena& arena_;
  std::vector<Turn> turns_;
};

}  // namespace

cpu::Workspace& cpu::workspace() {
  thread_local Workspace own;
  return own;
}

void CpuBackend::run(std::span<Work* const> works, Arena& arena) {
  Turns turns(pool_, is_small(works), arena);
  turns.add(works, [](const Work& work) { return work.checks.size(); }, run_check);
  turns.run();
  for (const Work* work : works) {
    for (const auto& move : work->moves) std::memcpy(move.to, move.from, move.bytes);
    for (const auto& upload : work->uploads) std::memcpy(upload.to, work->staged.data() + upload.offset, upload.bytes);
  }
  turns.add(works, [](const Work& work) { return work.copies.size(); }, run_copy);
  turns.add(works, [](const Work& work) { return work.scores.size(); }, run_score);
  turns.add(works, [](const Work& work) { return work.encodes.size(); }, run_encode);
  turns.add(works, [](const Work& work) { return work.gathers.size(); }, run_gather);
  turns.run();
}

Encoding::Encode CpuBackend::encode_into(Arena& arena) {
  return [&arena](EncodeTask& task, const Work& work) { cpu::encode(task, work, arena, cpu::workspace()); };
}

void CpuBackend::run(std::span<const std::shared_ptr<Encoding>> encodings, Arena& arena) {
  const Encoding::Encode encode = encode_into(arena);
  pool_.parallel_for(encodings.size(), [&](std::size_t i, std::size_t /*thread*/) { encodings[i]->run(encode); });
  for (const auto& encoding : encodings) encoding->wait();
}

void CpuBackend::defer(const std::shared_ptr<Encoding>& encoding, Arena& arena) {
  background_.submit(encoding, encode_into(arena));
}

void CpuBackend::attend(const AttendBatch& batch) {
  std::uint64_t floats = 0;
  for (const auto& task : batch.tasks) floats += cpu::part_size(*batch.values, task.rows);
  float* parts = cpu::workspace().parts.ensure<float>(floats);
  auto* left = cpu::workspace().parts_left.ensure<std::atomic<std::uint64_t>>(batch.tasks.size());
  for (std::size_t i = 0; i < batch.tasks.size(); ++i) {
    if (batch.tasks[i].part == 0) std::construct_at(left + i, batch.tasks[i].parts);
  }
  pool_.parallel_for(batch.tasks.size(), [&](std::size_t index, std::size_t /*thread*/) {
    const AttendTask& task = batch.tasks[index];
    const std::uint64_t size = cpu::part_size(*batch.values, task.rows);
    const std::size_t head = index - task.part;
    float* base = parts + head * size;  // all tasks of a batch have as many rows
    cpu::attend_part(batch, task, base + task.part * size, cpu::workspace());
    // The last one merges, always in the same order.
    if (left[head].fetch_sub(1) == 1) cpu::merge_parts(batch, task, base, cpu::workspace());
  });
}

void CpuBackend::expand(std::span<const ExpandTask> tasks) {
  pool_.parallel_for(tasks.size(),
                     [&](std::size_t i, std::size_t /*thread*/) { cpu::expand(tasks[i], cpu::workspace()); });
}

void CpuBackend::read(const Role& role, std::uint32_t kv_head, const Segment& segment, const PositionsView& positions,
                      std::uint64_t first, std::uint64_t count, float* rows) {
  cpu::decode(role, kv_head, segment, positions, first, count, rows, cpu::workspace());
}

double CpuBackend::now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void CpuBackend::read(const std::byte* from, void* to, std::size_t bytes) { std::memcpy(to, from, bytes); }

}  // namespace kvlab
