#include "core/backend/cpu/background.hpp"

#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <utility>

namespace kvlab::cpu {
namespace {

// Where a decoding thread wants the same core this one gets a tenth of it, and as the system changes threads only every
// few milliseconds, it also rests after each block: a step then meets one block at the most, not a queue of them.
constexpr int niceness = 10;
constexpr int rest = 8;  // times what the block took

}  // namespace

Background::~Background() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Background::submit(const std::shared_ptr<Encoding>& encoding, Encoding::Encode encode) {
  {
    const std::lock_guard lock(mutex_);
    queue_.push_back({encoding, std::move(encode)});
    if (!thread_.joinable()) thread_ = std::thread([this] { work(); });
  }
  changed_.notify_all();
}

void Background::quiesce() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return !busy_; });
}

void Background::work() {
  setpriority(PRIO_PROCESS, static_cast<id_t>(gettid()), niceness);
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return stop_ || !queue_.empty(); });
    if (stop_) return;
    const Job next = std::move(queue_.front());
    queue_.pop_front();
    busy_ = true;
    lock.unlock();
    const auto start = std::chrono::steady_clock::now();
    if (const auto encoding = next.encoding.lock()) encoding->run(next.encode);
    const auto took = std::chrono::steady_clock::now() - start;
    lock.lock();
    busy_ = false;
    changed_.notify_all();
    changed_.wait_for(lock, rest * took, [this] { return stop_; });
  }
}

}  // namespace kvlab::cpu
