// The thread that encodes blocks while decoding goes on. It is nice: where cores are few, decode steps come first.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "core/backend/encoding.hpp"

namespace kvlab::cpu {

// All but the constructor from any thread.
class Background {
 public:
  Background() = default;
  ~Background();
  Background(const Background&) = delete;
  Background& operator=(const Background&) = delete;

  // In order of arrival; one whose owners are gone by then is left out. The first call starts the thread.
  void submit(const std::shared_ptr<Encoding>& encoding, Encoding::Encode encode);
  // Returns when nothing is under way that has no owner but this thread: afterwards what such encodings refer to may
  // go.
  void quiesce();

 private:
  struct Job {
    std::weak_ptr<Encoding> encoding;
    Encoding::Encode encode;
  };

  void work();

  std::mutex mutex_;  // everything below but the thread
  std::condition_variable changed_;
  std::deque<Job> queue_;
  bool busy_ = false;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace kvlab::cpu
