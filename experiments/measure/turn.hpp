// Timed sections of workers that run side by side take turns. The runner says whose it is: it sees who waits, so that
// waiting costs a worker nothing of its limit, and a turn ends with its holder.
#pragma once

#include <list>

namespace kvlab {

// The worker's side: waits for its turn, and ends it. fd < 0: nobody else is running. Where the line is closed there
// are no turns to wait for.
class TimingTurn {
 public:
  explicit TimingTurn(int fd);
  ~TimingTurn();
  TimingTurn(const TimingTurn&) = delete;
  TimingTurn& operator=(const TimingTurn&) = delete;

 private:
  int fd_;
};

class TurnLine;

// The runner's side: the turn goes to who waits the longest.
class Turns {
 public:
  void give();  // to the next, if nobody has it

 private:
  friend class TurnLine;
  std::list<TurnLine*> waiting_;
  TurnLine* holder_ = nullptr;
};

// The line to one worker. Its turn, or its place in the queue, ends with it. `turns` outlives it.
class TurnLine {
 public:
  explicit TurnLine(Turns& turns);
  ~TurnLine();
  TurnLine(const TurnLine&) = delete;
  TurnLine& operator=(const TurnLine&) = delete;

  [[nodiscard]] int worker_end() const { return worker_end_; }
  void close_worker_end();  // once the worker has it

  // Hears what the worker asks for; true while it waits for another's turn to end.
  bool waits();

 private:
  friend class Turns;
  void leave();

  Turns& turns_;
  int own_end_ = -1;
  int worker_end_ = -1;
};

}  // namespace kvlab
