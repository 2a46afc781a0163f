// The one thread pool: a loop whose iterations are independent, spread over threads. No OpenMP, so that
// ThreadSanitizer sees every synchronisation.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace kvlab {

// Cores that this process may run on, at least 1.
std::size_t allowed_cores();

class ThreadPool {
 public:
  // The caller works too: `threads` = 1 starts none. 0 means one per core that this process may run on. Throws Error
  // where the system gives fewer.
  explicit ThreadPool(std::size_t threads = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  [[nodiscard]] std::size_t threads() const { return workers_.size() + 1; }

  // Calls body(index, thread) for every index below `count`, thread < threads(), and returns when all are done. The
  // first exception is thrown here after the others have finished; indexes not begun by then are left out.
  // Calls from several threads take turns; a body must not call it again. Threads watch for the next call for some
  // microseconds before they sleep: decoding makes one after another, and waking a thread takes longer than a layer.
  void parallel_for(std::size_t count, const std::function<void(std::size_t index, std::size_t thread)>& body);

 private:
  void end();
  void work(std::size_t thread);
  void drain(std::size_t thread);
  bool wait_briefly(std::uint64_t seen) const;

  std::vector<std::thread> workers_;
  std::mutex caller_;  // one parallel_for at a time
  std::mutex mutex_;   // body_, failure_, and sleeping
  std::condition_variable start_;
  std::condition_variable done_;
  const std::function<void(std::size_t, std::size_t)>* body_ = nullptr;
  std::exception_ptr failure_;
  std::size_t count_ = 0;
  std::atomic<std::size_t> next_{0};
  std::atomic<std::size_t> busy_{0};          // threads inside drain
  std::atomic<std::uint64_t> generation_{0};  // of parallel_for calls
  std::atomic<bool> failed_{false};
  std::atomic<bool> stop_{false};
};

}  // namespace kvlab
