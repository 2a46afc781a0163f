// The thread that encodes blocks while decoding goes on: one per backend. It is nice (10) and rests after each block,
// so that where cores are few, decode steps come first.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "core/backend/encoding.hpp"

namespace kvlab::cpu {

// Every function from any thread; each holds the mutex for its bookkeeping alone, never while a block is encoded.
class Background {
 public:
  Background() = default;
  ~Background();
  Background(const Background&) = delete;
  Background& operator=(const Background&) = delete;

  // Encodings are run in order of arrival; one that nobody owns any more when its turn comes is left out. The first
  // call starts the thread. What `encode` refers to must last until the encoding is done or left out: quiesce().
  void submit(const std::shared_ptr<Encoding>& encoding, Encoding::Encode encode);
  // Returns when no encoding is being run that nobody else owns. To be called before what such encodings refer to ends
  // (an arena, a role). Blocks for one block at the most.
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
