#include "experiments/measure/turn.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <thread>
#include <vector>

namespace kvlab {
namespace {

// Polls as the runner does, until `done`.
template <typename Done>
void serve(const std::vector<TurnLine*>& lines, const Done& done) {
  while (!done()) {
    for (TurnLine* line : lines) line->waits();
    std::this_thread::yield();
  }
}

TEST(TimingTurn, OneAtATimeAndTheNextWhenItEnds) {
  Turns turns;
  TurnLine first(turns);
  TurnLine second(turns);
  std::atomic<int> inside{0};
  std::atomic<int> most{0};
  std::atomic<int> done{0};
  const auto work = [&](int fd) {
    for (int i = 0; i < 50; ++i) {
      const TimingTurn turn(fd);
      most = std::max<int>(most, ++inside);
      std::this_thread::yield();
      --inside;
    }
    ++done;
  };
  std::thread one(work, first.worker_end());
  std::thread two(work, second.worker_end());
  serve({&first, &second}, [&] { return done == 2; });
  one.join();
  two.join();
  EXPECT_EQ(most, 1);
}

TEST(TimingTurn, AHolderThatIsGoneHasNoTurn) {
  Turns turns;
  auto holder = std::make_unique<TurnLine>(turns);
  TurnLine other(turns);
  std::atomic<bool> taken{false};
  std::atomic<bool> dead{false};
  std::thread takes([&, fd = dup(holder->worker_end())] {
    const TimingTurn turn(fd);
    taken = true;
    while (!dead) std::this_thread::yield();
  });
  serve({holder.get()}, [&] { return taken.load(); });
  std::thread waits([&] { const TimingTurn turn(other.worker_end()); });
  while (!other.waits()) std::this_thread::yield();
  EXPECT_FALSE(holder->waits());  // its own time counts
  EXPECT_TRUE(other.waits());
  holder.reset();
  EXPECT_FALSE(other.waits());
  waits.join();
  dead = true;
  takes.join();
}

TEST(TimingTurn, NothingToWaitForOnALineThatIsClosed) {
  Turns turns;
  TurnLine line(turns);
  const int fd = line.worker_end();
  line.close_worker_end();
  const TimingTurn turn(fd);
  EXPECT_FALSE(line.waits());
}

}  // namespace
}  // namespace kvlab
