#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <fstream>
#include <stdexcept>

#include "core/base/child.hpp"
#include "core/base/error.hpp"
#include "core/base/hash.hpp"
#include "core/base/nearest.hpp"
#include "core/base/text.hpp"
#include "core/base/thread_pool.hpp"
#include "core/base/vector.hpp"
#include "tests/support/support.hpp"

namespace kvlab {
namespace {

TEST(ThreadPool, CallsEachIndexOnce) {
  for (const std::size_t threads : {1U, 2U, 7U}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    for (const std::size_t count : {0U, 1U, 5U, 1000U}) {
      std::vector<std::atomic<int>> seen(count);
      pool.parallel_for(count, [&](std::size_t index, std::size_t thread) {
        ASSERT_LT(thread, threads);
        ++seen[index];
      });
      for (const auto& times : seen) EXPECT_EQ(times, 1);
    }
  }
}

TEST(ThreadPool, ThrowsTheFirstExceptionAndWorksOn) {
  ThreadPool pool(3);
  const auto fail = [](std::size_t index, std::size_t) {
    if (index == 17) throw std::runtime_error("seventeen");
  };
  EXPECT_THROW(pool.parallel_for(100, fail), std::runtime_error);
  std::atomic<int> calls{0};
  pool.parallel_for(10, [&](std::size_t, std::size_t) { ++calls; });
  EXPECT_EQ(calls, 10);
}

TEST(Nearest, SuggestsWhatIsNearOrAllOfAFew) {
  const std::vector<std::string> names{"quantize", "low_rank", "random"};
  EXPECT_EQ(nearest("quantise", names), "quantize");
  EXPECT_EQ(suggestion("quantise", names), "; the nearest valid name is 'quantize'");
  EXPECT_EQ(suggestion("zzz", names), "; valid: quantize, low_rank, random");
  EXPECT_EQ(suggestion("zzz", {}), "; there are none");
}

TEST(Nearest, OfNamesWithoutEndIsQuick) {
  const std::vector<std::string> names(100, std::string(1U << 20U, 'a'));
  EXPECT_EQ(nearest(std::string(1U << 20U, 'b'), names).size(), 1U << 20U);
}

TEST(Text, ControlsNoTerminal) {
  EXPECT_EQ(printable("plain, \"quoted\", 3 µs, 漢字, 🙂 \\ %"), "plain, \"quoted\", 3 µs, 漢字, 🙂 \\ %");
  EXPECT_EQ(printable("\033]0;title\007\r\n\tx\177"), "\\x1b]0;title\\x07\\r\\n\\tx\\x7f");
  EXPECT_EQ(printable(std::string_view("a\0b", 3)), "a\\x00b");
  EXPECT_EQ(printable("\u009b31m"), "\\x9b31m");  // CSI in one character
  EXPECT_EQ(printable("\u202egpj.exe\u2066"), "\\u202egpj.exe\\u2066");
  EXPECT_EQ(printable("\xff\xc3"), "\\xff\\xc3");                             // no UTF-8, cut short
  EXPECT_EQ(printable("\xc0\x9b\xe0\x82\x9b"), "\\xc0\\x9b\\xe0\\x82\\x9b");  // longer than they may be
  EXPECT_EQ(printable("\xed\xa0\x80\xf5\x80\x80\x80"), "\\xed\\xa0\\x80\\xf5\\x80\\x80\\x80");
  const std::string once = printable("\033[2J");
  EXPECT_EQ(printable(once), once);
}

TEST(Text, IsShortened) {
  EXPECT_EQ(shortened("short", 5), "short");
  EXPECT_EQ(shortened("0123456789abcdef", 9), "012…def");
  EXPECT_EQ(shortened("ééééééé", 9), "é…é");  // characters stay whole
  const std::string text = message("file.yaml:1:1: there is no '" + std::string(15U << 20U, 'x') + "'; valid: a, b");
  EXPECT_LT(text.size(), 400);
  EXPECT_TRUE(text.starts_with("file.yaml:1:1: there is no 'xxx")) << text;
  EXPECT_TRUE(text.ends_with("xxx'; valid: a, b")) << text;
  std::string words;
  for (int i = 0; i < 100'000; ++i) words += "word ";
  EXPECT_LE(message(words).size(), 2000);
}

TEST(Hash, IsXxh3) {
  EXPECT_EQ(hash_of(""), "2d06800538d394c2");  // published test vector
  const test::Folder folder;
  const auto path = folder.path() / "empty";
  std::ofstream(path).close();
  EXPECT_EQ(hash_of_file(path), "99aa06d3014798d86001c324468d497f");
  EXPECT_THROW(hash_of_file(folder.path() / "absent"), InputError);
}

TEST(Child, TellsHowItEnded) {
  const auto result = in_child([] { return std::string("fine"); });
  EXPECT_TRUE(result.ok);
  EXPECT_EQ(result.text, "fine");
  EXPECT_EQ(in_child([]() -> std::string { throw InputError("no good"); }).text, "no good");
  EXPECT_EQ(in_child([]() -> std::string {
              raise(SIGKILL);
              return "";
            }).text,
            "opening it crashes (SIGKILL)");
  EXPECT_EQ(in_child([]() -> std::string { _exit(4); }).text, "opening it ends the process (exit 4)");
  EXPECT_EQ(in_child(
                []() -> std::string {
                  while (true) pause();
                },
                {.doing = "waiting for it", .seconds = 0.2})
                .text,
            "waiting for it takes longer than 0.2 s");
  const std::string large(1 << 20, 'x');  // more than a pipe holds
  EXPECT_EQ(in_child([&] { return large; }).text, large);
}

TEST(Child, OneThatStandsStillIsEnded) {
#if defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "ThreadSanitizer has a thread of its own, which never does";
#endif
  const auto sleep = []() -> std::string {
    while (true) pause();
  };
  EXPECT_EQ(in_child(sleep, {.doing = "waiting", .idle_seconds = 0.3}).text,
            "waiting stands still: it used no processor for 0.3 s");
}

TEST(ThreadPool, RefusesWhereTheSystemGivesNoThread) {
  const auto result = in_child([]() -> std::string {
    const rlimit none{1, 1};  // of root's processes it is not asked
    setrlimit(RLIMIT_NPROC, &none);
    if (getuid() == 0 && setuid(65534) != 0) return "root stays root";
    const ThreadPool pool(8);
    return "8 threads";
  });
  EXPECT_EQ(result.text, "the system gives no more than 1 of 8 threads");
}

TEST(Child, IsLimitedInProcessorTimeAndMemory) {
  const auto spin = []() -> std::string {
    while (true) getpid();
  };
  EXPECT_EQ(in_child(spin, {.doing = "turning", .cpu_seconds = 1}).text, "turning takes longer than 1 s");
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // they have a memory of their own
  const auto take = [](std::size_t mebibytes) {
    return [mebibytes] {
      const std::vector<char> much(mebibytes << 20, 'x');
      return std::string(1, much[mebibytes]);
    };
  };
  const ChildLimits limits{.doing = "reading it", .memory = std::uint64_t{64} << 20};
  EXPECT_EQ(in_child(take(300), limits).text, "reading it needs more than 64 MiB of memory");
  EXPECT_TRUE(in_child(take(16), limits).ok);
  EXPECT_TRUE(in_child(
                  [&] {
                    allow_memory(std::uint64_t{400} << 20);
                    return take(300)();
                  },
                  limits)
                  .ok);
#endif
}

// Neither does the pipe that it inherited keep the caller waiting.
TEST(Child, TakesWhatItStartedWithIt) {
  std::array<int, 2> ends{};
  ASSERT_EQ(pipe(ends.data()), 0);
  const auto leave_one_behind = [&]() -> std::string {
    if (fork() == 0) {
      while (true) pause();
    }
    return "left";
  };
  EXPECT_EQ(in_child(leave_one_behind).text, "left");
  close(ends[1]);
  char nothing = 0;
  EXPECT_EQ(read(ends[0], &nothing, 1), 0);  // nobody holds the other end any more
  close(ends[0]);
}

TEST(Child, DiesWithItsParent) {
  std::array<int, 2> ends{};
  ASSERT_EQ(pipe(ends.data()), 0);
  const pid_t parent = fork();
  if (parent == 0) {
    in_child([&]() -> std::string {
      if (write(ends[1], "x", 1) != 1) return "";
      while (true) pause();
    });
    _exit(0);
  }
  close(ends[1]);
  char there = 0;
  ASSERT_EQ(read(ends[0], &there, 1), 1);
  kill(parent, SIGKILL);
  waitpid(parent, nullptr, 0);
  EXPECT_EQ(read(ends[0], &there, 1), 0);
  close(ends[0]);
}

TEST(Vector, AgreesWithTheLoopForEveryLength) {
  for (std::size_t count = 0; count < 70; ++count) {
    std::vector<float> a(count);
    std::vector<float> b(count);
    double expected = 0;
    for (std::size_t i = 0; i < count; ++i) {
      a[i] = static_cast<float>(i % 7) - 3;
      b[i] = static_cast<float>(i % 5) - 2;
      expected += static_cast<double>(a[i]) * b[i];
    }
    EXPECT_EQ(dot(a.data(), b.data(), count), expected);  // small integers: exact
    std::vector<float> sum = b;
    add_scaled(2, a.data(), sum.data(), count);
    scale(3, sum.data(), count);
    for (std::size_t i = 0; i < count; ++i) EXPECT_EQ(sum[i], 3 * (b[i] + 2 * a[i]));
  }
}

}  // namespace
}  // namespace kvlab
