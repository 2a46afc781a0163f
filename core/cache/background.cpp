#include "core/cache/background.hpp"

#include <sys/resource.h>
#include <unistd.h>

#include "core/cache/encoding.hpp"

namespace kvlab {
namespace {

// A tenth of the share that a decoding thread gets of a core that both want.
constexpr int niceness = 10;

}  // namespace

Background::~Background() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Background::submit(const std::shared_ptr<Encoding>& encoding) {
  {
    const std::lock_guard lock(mutex_);
    queue_.push_back(encoding);
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
  Workspace workspace;
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return stop_ || !queue_.empty(); });
    if (stop_) return;
    const std::weak_ptr<Encoding> next = std::move(queue_.front());
    queue_.pop_front();
    busy_ = true;
    lock.unlock();
    if (const auto encoding = next.lock()) encoding->run(arena_, workspace);
    lock.lock();
    busy_ = false;
    changed_.notify_all();
  }
}

}  // namespace kvlab
