#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <new>
#include <stdexcept>

#include "core/base/child.hpp"
#include "core/base/error.hpp"
#include "core/base/hash.hpp"
#include "core/base/memory.hpp"
#include "core/base/nearest.hpp"
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

TEST(Arena, DealsOutAlignedPiecesAndCountsThem) {
  Arena arena;
  arena.reset(1024);
  for (const std::size_t bytes : {1U, 64U, 65U, 0U}) {
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(arena.allocate(bytes)) % 64, 0U);
  }
  EXPECT_EQ(arena.requested(), 130U);
  EXPECT_EQ(arena.reserved(), 64U + 64U + 128U);
  EXPECT_THROW(arena.allocate(1000), std::bad_alloc);
  EXPECT_EQ(arena.reserved(), 256U);
  const std::byte* first = (arena.reset(512), arena.allocate(8));
  EXPECT_EQ((arena.reset(512), arena.allocate(8)), first);  // warm memory is used again
}

TEST(Nearest, SuggestsWhatIsNearOrAllOfAFew) {
  const std::vector<std::string> names{"quantize", "low_rank", "random"};
  EXPECT_EQ(nearest("quantise", names), "quantize");
  EXPECT_EQ(suggestion("quantise", names), "; the nearest valid name is 'quantize'");
  EXPECT_EQ(suggestion("zzz", names), "; valid: quantize, low_rank, random");
  EXPECT_EQ(suggestion("zzz", {}), "; there are none");
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
                1)
                .text,
            "opening it took longer than 1 s");
  const std::string large(1 << 20, 'x');  // more than a pipe holds
  EXPECT_EQ(in_child([&] { return large; }).text, large);
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
