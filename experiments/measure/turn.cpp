#include "experiments/measure/turn.hpp"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "core/base/error.hpp"

namespace kvlab {
namespace {

constexpr char asks = 'a';
constexpr char ends = 'e';
constexpr char yours = 'y';

bool say(int fd, char word) { return send(fd, &word, 1, MSG_NOSIGNAL | MSG_DONTWAIT) == 1; }

}  // namespace

TimingTurn::TimingTurn(int fd) : fd_(fd) {
  if (fd_ < 0 || !say(fd_, asks)) return;
  char word = 0;
  while (recv(fd_, &word, 1, 0) < 0 && errno == EINTR) {
  }
}

TimingTurn::~TimingTurn() {
  if (fd_ >= 0) say(fd_, ends);
}

void Turns::give() {
  if (holder_ != nullptr || waiting_.empty()) return;
  holder_ = waiting_.front();
  waiting_.pop_front();
  say(holder_->own_end_, yours);
}

TurnLine::TurnLine(Turns& turns) : turns_(turns) {
  std::array<int, 2> pair{};
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair.data()) != 0)
    throw Error("cannot make a line to a worker");
  own_end_ = pair[0];
  worker_end_ = pair[1];
}

TurnLine::~TurnLine() {
  leave();
  close(own_end_);
  close_worker_end();
}

void TurnLine::close_worker_end() {
  if (const int fd = std::exchange(worker_end_, -1); fd >= 0) close(fd);
}

void TurnLine::leave() {
  turns_.waiting_.remove(this);
  if (turns_.holder_ == this) turns_.holder_ = nullptr;
}

bool TurnLine::waits() {
  char word = 0;
  // What is more than a worker's two words at once is no worker's: the rest is heard another time.
  for (int i = 0; i < 16 && recv(own_end_, &word, 1, MSG_DONTWAIT) == 1; ++i) {
    leave();
    if (word == asks) turns_.waiting_.push_back(this);
  }
  turns_.give();
  return std::find(turns_.waiting_.begin(), turns_.waiting_.end(), this) != turns_.waiting_.end();
}

}  // namespace kvlab
