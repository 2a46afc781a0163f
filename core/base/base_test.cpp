#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <new>
#include <stdexcept>

#include "core/base/arena.hpp"
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

TEST(Arena, APromiseIsKeptForItsPiece) {
  Arena arena(1024);
  {
    Promise promise = arena.promise(768);
    EXPECT_EQ(arena.reserved(), 0U);
    EXPECT_THROW(arena.allocate(320, 320), BudgetError);
    const auto other = arena.allocate(256, 256);
    const auto first = arena.allocate(500, 500, promise);
    EXPECT_EQ(arena.reserved(), 768U);
    EXPECT_THROW(arena.allocate(64, 64), BudgetError);  // 256 are still promised
    Promise moved = std::move(promise);
    const auto second = arena.allocate(256, 256, moved);
    EXPECT_EQ(arena.reserved(), 1024U);
  }
  EXPECT_NO_THROW(arena.promise(1024));
  EXPECT_NO_THROW(arena.check(1024));  // it was given back
}

TEST(Arena, DealsOutAlignedPiecesAndCountsThem) {
  Arena arena;
  {
    std::vector<std::shared_ptr<Piece>> pieces;
    for (const std::uint64_t bytes : {1U, 64U, 65U}) {
      pieces.push_back(arena.allocate(bytes, bytes));
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(pieces.back()->data()) % 64, 0U);
    }
    EXPECT_EQ(arena.requested(), 130U);
    EXPECT_EQ(arena.reserved(), 64U + 64U + 128U);
    pieces[2]->use(100);
    EXPECT_EQ(arena.requested(), 165U);
    const std::byte* freed = pieces[1]->data();
    pieces[1].reset();
    EXPECT_EQ(arena.reserved(), 192U);
    pieces[1] = arena.allocate(60, 60);
    EXPECT_EQ(pieces[1]->data(), freed);  // a piece of the size is used again
  }
  EXPECT_EQ(arena.requested(), 0U);
  EXPECT_EQ(arena.reserved(), 0U);
}

TEST(Arena, IsDealtFromTheFrontAgainOnceAllIsFree) {
  Arena arena;
  const std::byte* first = arena.allocate(1000, 0)->data();
  auto a = arena.allocate(64, 0);
  EXPECT_EQ(a->data(), first);
  const auto b = arena.allocate(64, 0);
  EXPECT_EQ(b->data(), first + 64);
}

TEST(Arena, KeepsItsBudget) {
  Arena arena(1024);
  const auto piece = arena.allocate(512, 512);
  arena.check(512);
  EXPECT_THROW(arena.check(513), BudgetError);
  EXPECT_THROW(arena.allocate(513, 1), BudgetError);
  EXPECT_EQ(arena.reserved(), 512U);
  const auto rest = arena.allocate(512, 512);
  EXPECT_THROW(arena.allocate(1, 1), BudgetError);
}

TEST(Arena, ALargerPieceIsNotTakenBeyondTheBudget) {
  Arena arena(640);
  auto freed = arena.allocate(320, 320);
  const auto other = arena.allocate(320, 320);
  freed.reset();
  const auto small = arena.allocate(64, 64);
  const auto last = arena.allocate(256, 256);  // the free piece of 320 would do, but for the budget
  EXPECT_EQ(arena.reserved(), 640U);
}

TEST(Arena, MemoryDoesNotGrowWithTimesOfUse) {
  Arena arena;
  std::vector<std::shared_ptr<Piece>> ring(100);
  for (std::size_t i = 0; i < 100000; ++i) ring[i % ring.size()] = arena.allocate(4000 + i % 3 * 100, 1);
  EXPECT_LT(arena.mapped(), std::uint64_t{3} << 20);
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
