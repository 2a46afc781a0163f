#include "core/base/thread_pool.hpp"

#include <sched.h>

#include <algorithm>
#include <string>
#include <utility>

#include "core/base/error.hpp"

namespace kvlab {
namespace {

constexpr int spins = 2000;  // some 50 microseconds

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

std::size_t allowed_cores() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return static_cast<std::size_t>(std::max(1, CPU_COUNT(&set)));
  return std::max(1U, std::thread::hardware_concurrency());
}

ThreadPool::ThreadPool(std::size_t threads) {
  if (threads == 0) threads = allowed_cores();
  try {
    for (std::size_t thread = 1; thread < threads; ++thread) workers_.emplace_back([this, thread] { work(thread); });
  } catch (const std::exception&) {  // what has started must end before this does
    const std::size_t started = workers_.size() + 1;
    end();
    throw Error("the system gives no more than " + std::to_string(started) + " of " + std::to_string(threads) +
                " threads");
  }
}

ThreadPool::~ThreadPool() { end(); }

void ThreadPool::end() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  start_.notify_all();
  for (auto& worker : workers_) worker.join();
}

void ThreadPool::parallel_for(std::size_t count, const std::function<void(std::size_t, std::size_t)>& body) {
  if (count == 0) return;
  const std::lock_guard turn(caller_);
  {
    const std::lock_guard lock(mutex_);
    body_ = &body;
    next_ = 0;
    count_ = count;
    failed_ = false;
    busy_ = threads();
    ++generation_;
  }
  if (!workers_.empty()) start_.notify_all();
  drain(0);
  for (int spin = 0; spin < spins && busy_ != 0; ++spin) pause();
  std::unique_lock lock(mutex_);
  done_.wait(lock, [this] { return busy_ == 0; });
  body_ = nullptr;
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

bool ThreadPool::wait_briefly(std::uint64_t seen) const {
  for (int spin = 0; spin < spins; ++spin) {
    if (stop_ || generation_ != seen) return true;
    pause();
  }
  return false;
}

void ThreadPool::work(std::size_t thread) {
  std::uint64_t seen = 0;
  while (true) {
    if (!wait_briefly(seen)) {
      std::unique_lock lock(mutex_);
      start_.wait(lock, [&] { return stop_ || generation_ != seen; });
    }
    {
      const std::lock_guard lock(mutex_);  // orders what parallel_for wrote before this
      if (stop_) return;
      seen = generation_;
    }
    drain(thread);
  }
}

// Takes indexes until there are none.
void ThreadPool::drain(std::size_t thread) {
  while (!failed_) {
    const std::size_t index = next_++;
    if (index >= count_) break;
    try {
      (*body_)(index, thread);
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!failure_) failure_ = std::current_exception();
      failed_ = true;
    }
  }
  if (--busy_ == 0) {
    const std::lock_guard lock(mutex_);
    done_.notify_all();
  }
}

}  // namespace kvlab
