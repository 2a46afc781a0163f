#include "core/method/calls.hpp"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <latch>
#include <thread>

#include "core/base/error.hpp"

namespace kvlab {
namespace {

// The status of a child that does `work` with its calls on the board.
template <typename Work>
int status_of_child(CallBoard& board, const Work& work) {
  const pid_t child = fork();
  if (child == 0) {
    board.publish();
    work();
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return status;
}

using Calls = std::vector<OpenCall>;

TEST(CallsDeathTest, AnotherProcessReadsTheCallsThatWereOpenWhenOneDied) {
  CallBoard board;
  const int status = status_of_child(board, [] {
    const std::uint32_t quantize = call_label("quantize");
    {
      const InCall left(quantize, Call::create);
    }
    const InCall outer(quantize, Call::encode);
    {
      const InCall inner(call_label("other"), Call::bound);
    }
    kill(getpid(), SIGKILL);
  });
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  EXPECT_EQ(board.open(), (Calls{{"quantize", Call::encode}}));
  EXPECT_EQ(to_text(board.open()), "quantize's encode");
}

TEST(CallsDeathTest, OfSeveralThreadsTheOneThatCrashed) {
  CallBoard board;
  const int status = status_of_child(board, [] {
    std::latch inside(1);
    std::thread([&] {
      const InCall in(call_label("patient"), Call::decode);
      inside.count_down();
      while (true) pause();
    }).detach();
    inside.wait();
    const InCall in(call_label("rash"), Call::scores);
    raise(SIGSEGV);
  });
  // A sanitizer makes an exit of the signal.
  EXPECT_TRUE(WIFSIGNALED(status) ? WTERMSIG(status) == SIGSEGV : WEXITSTATUS(status) != 0);
  EXPECT_EQ(to_text(board.open()), "rash's scores");
}

TEST(CallsDeathTest, OfAThreadThatCrashedInNoCallNone) {
  CallBoard board;
  status_of_child(board, [] {
    {
      const InCall left(call_label("innocent"), Call::encode);
    }
    std::abort();
  });
  EXPECT_EQ(to_text(board.open()), "");
}

TEST(CallsDeathTest, EachDistinctCallOnceWhereNoneCrashed) {
  CallBoard board;
  status_of_child(board, [] {
    std::latch inside(3);
    const auto enter = [&](const char* method, Call call) {
      const InCall in(call_label(method), call);
      inside.count_down();
      while (true) pause();
    };
    std::thread(enter, "a", Call::encode).detach();
    std::thread(enter, "a", Call::encode).detach();
    std::thread(enter, "b", Call::decode).detach();
    inside.wait();
    _exit(3);
  });
  EXPECT_EQ(board.open().size(), 2U) << to_text(board.open());
}

TEST(Calls, ABoardKeepsItsSize) {
  const CallBoard board;
  EXPECT_NE(ftruncate(board.fd(), 0), 0);
  EXPECT_TRUE(board.open().empty());  // the page is there
}

TEST(Calls, NothingIsNotedWithoutABoard) {
  const CallBoard board;
  EXPECT_EQ(call_label("quantize"), 0U);
  const InCall in(call_label("quantize"), Call::encode);
  EXPECT_TRUE(board.open().empty());
}

TEST(Calls, AFileThatIsNoBoardIsRefused) { EXPECT_THROW(CallBoard(dup(STDIN_FILENO)), Error); }

}  // namespace
}  // namespace kvlab
