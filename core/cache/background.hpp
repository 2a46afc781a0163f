// The thread that encodes blocks while decoding goes on. It is nice: where cores are few, decode steps come first.
#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>

#include "core/base/arena.hpp"

namespace kvlab {

class Encoding;

class Background {
 public:
  explicit Background(Arena& arena) : arena_(arena) {}
  ~Background();
  Background(const Background&) = delete;
  Background& operator=(const Background&) = delete;

  // In order of arrival; one whose owners are gone by then is left out. The first call starts the thread.
  void submit(const std::shared_ptr<Encoding>& encoding);
  // Returns when nothing is under way that has no owner but this thread: afterwards what such encodings refer to may
  // go.
  void quiesce();

 private:
  void work();

  Arena& arena_;
  std::mutex mutex_;  // everything below but the thread
  std::condition_variable changed_;
  std::deque<std::weak_ptr<Encoding>> queue_;
  bool busy_ = false;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace kvlab
