// A codec (bf16 rows, kept as f32) that does what no codec should, at the place and in the way that `how` names.
#include <kvlab/plugin.hpp>

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <vector>

namespace {

enum class How {
  fine,
  segfault,
  abort,
  exit,
  exit_zero,
  hang,
  eat_memory,
  nan,
  throws,
  unsupported,
  out_of_memory,
  wrong_sum,
  too_long,
  invalid_at_create,
  spam,
  huge_bound,
  zero_block,
  wraps,
  huge_prepared,
  infinite_score,
  too_short,
  reserved_trait,
  eat_in_child,
  eat_in_file,
  leave_children,
  kill_parent,
  close_all,
  remove_cells,
  cells_to_file,
  warn
};
constexpr std::array names{"fine",           "segfault",
                           "abort",          "exit",
                           "exit_zero",      "hang",
                           "eat_memory",     "nan",
                           "throws",         "unsupported",
                           "out_of_memory",  "wrong_sum",
                           "too_long",       "invalid_at_create",
                           "spam",           "huge_bound",
                           "zero_block",     "wraps",
                           "huge_prepared",  "infinite_score",
                           "too_short",      "reserved_trait",
                           "eat_in_child",   "eat_in_file",
                           "leave_children", "kill_parent",
                           "close_all",      "remove_cells",
                           "cells_to_file",  "warn"};

// A process that no group and no session holds, and whose parent is gone.
template <typename Work>
void detached(const Work& work) {
  if (fork() != 0) return;
  setsid();
  if (fork() != 0) _exit(0);
  work();
  _exit(0);
}

[[noreturn]] void rest() {
  while (true) pause();
}

constexpr std::size_t share = std::size_t{300} << 20;  // two of them pass 512 MiB, one does not

// The folder of a run's cells, which a test tells; a worker is not told.
std::filesystem::path cells() {
  const char* folder = std::getenv("KVLAB_TEST_CELLS");
  return folder != nullptr ? folder : "/nonexistent/kvlab-test";
}

struct Misbehave : kvlab::Codec {
  How how;
  static constexpr kvlab::Info info{.id = "misbehave", .version = "1", .summary = "a codec for tests"};
  static constexpr auto parameters() {
    return std::tuple{kvlab::choice(&Misbehave::how, "how", How::fine, names, "what it does")};
  }

  void start() {
    if (how == How::invalid_at_create) throw kvlab::InvalidArgument("these parameters do not go together");
  }
  [[nodiscard]] std::uint64_t block_tokens() const { return how == How::zero_block ? 0 : 64; }
  [[nodiscard]] std::uint64_t bound(std::uint64_t tokens) const {
    return how == How::huge_bound ? std::numeric_limits<std::uint64_t>::max() : tokens * head_dim() * 4;
  }

  [[nodiscard]] bool fills_bound() const { return how == How::too_short; }

  kvlab_parts encode(const kvlab::EncodeIn& in, std::span<std::uint8_t> out) const {
    misdo();
    std::vector<float> rows(in.tokens.tokens * head_dim());
    in.tokens.read_all(rows);
    std::memcpy(out.data(), rows.data(), rows.size() * 4);
    const std::uint64_t size = rows.size() * 4;
    return {how == How::too_long ? size + 8 : how == How::too_short ? size - 8 : size, 0, 0, 0};
  }

  void misdo() const {
    switch (how) {
      case How::segfault:
        raise(SIGSEGV);
        break;
      case How::abort:
        std::abort();
      case How::exit:
        _exit(3);
      case How::exit_zero:
        _exit(0);
      case How::hang:
        while (true) std::this_thread::sleep_for(std::chrono::seconds(1));
      case How::eat_memory:
        for (std::vector<std::vector<char>> eaten;;) eaten.emplace_back(std::size_t{16} << 20, 'x');
      case How::throws:
        throw std::runtime_error("something inside went wrong");
      case How::unsupported:
        throw kvlab::Unsupported("not for this shape");
      case How::out_of_memory:
        throw std::bad_alloc();
      case How::spam:
        for (int i = 0; i < 100'000; ++i) std::fputs("a line that nobody reads, again and again\n", stderr);
        std::abort();
      default:
        static std::once_flag once;
        std::call_once(once, [this] { misdo_once(); });
    }
  }

  // What would be done again by each thread.
  void misdo_once() const {
    switch (how) {
      case How::eat_in_child:
        for (int i = 0; i < 2; ++i) {
          detached([] {
            const std::vector<char> eaten(share, 'x');
            rest();
          });
        }
        rest();
      case How::eat_in_file: {
        const int file = memfd_create("misbehave", 0);
        const std::vector<char> part(std::size_t{16} << 20, 'x');
        while (write(file, part.data(), part.size()) > 0) {
        }
        rest();
      }
      case How::leave_children:
        for (int i = 0; i < 3; ++i) detached([] { rest(); });
        break;
      case How::kill_parent:
        kill(getppid(), SIGKILL);
        rest();
      case How::close_all:
        for (int fd = 0; fd < 64; ++fd) close(fd);
        break;
      case How::remove_cells:
        std::filesystem::remove_all(cells());
        break;
      case How::cells_to_file:
        std::filesystem::remove_all(cells());
        std::ofstream(cells()) << "no folder";
        break;
      case How::warn:
        host->log(2, "a value is \x1b[31mred");
        std::fputs("not in a log\n", stderr);
        break;
      default:
        break;
    }
  }

  void decode(const kvlab::Block& block, std::uint64_t first, std::uint64_t count, kvlab::Rows rows,
              kvlab::Scratch /*scratch*/) const {
    for (std::uint64_t t = 0; t < count; ++t) {
      std::memcpy(rows[t], block.bytes + (first + t) * head_dim() * 4, head_dim() * 4);
      if (how == How::nan) rows[t][0] = std::numeric_limits<float>::quiet_NaN();
    }
  }

  // Scores from the bytes, so that what they may be is checked too.
  [[nodiscard]] std::uint64_t prepared_bytes(std::uint64_t queries) const {
    return how == How::huge_prepared ? std::numeric_limits<std::uint64_t>::max() : queries * head_dim() * 4;
  }
  void prepare(std::uint32_t /*kv_head*/, const float* queries, std::uint64_t count, void* prepared,
               kvlab::Scratch /*scratch*/) const {
    std::memcpy(prepared, queries, count * head_dim() * 4);
  }
  void scores(const void* prepared, std::uint64_t queries, const kvlab::Block& block, std::uint64_t first,
              std::uint64_t count, kvlab::Rows out, kvlab::Scratch /*scratch*/) const {
    const auto* query = static_cast<const float*>(prepared);
    const auto* rows = reinterpret_cast<const float*>(block.bytes);
    for (std::uint64_t q = 0; q < queries; ++q) {
      for (std::uint64_t t = 0; t < count; ++t) {
        out[q][t] = how == How::infinite_score ? -std::numeric_limits<float>::infinity() : 0.0F;
        for (std::uint64_t c = 0; c < head_dim(); ++c)
          out[q][t] += query[q * head_dim() + c] * rows[(first + t) * head_dim() + c];
      }
    }
  }
};

// The C++ face makes sizes add up, so a wrong sum takes the C table.
kvlab_status encode_wrong_sum(const kvlab_codec* codec, const kvlab_encode_in* in, kvlab_encode_out* out,
                              kvlab_message* message) {
  const kvlab_status status = kvlab::detail::CodecTable<Misbehave>::encode(codec, in, out, message);
  const How how = reinterpret_cast<const Misbehave*>(codec)->how;
  if (how == How::wrong_sum) out->parts.payload -= 1;
  if (how == How::wraps) {  // the sum is right, modulo 2^64
    out->parts.payload += 8;
    out->parts.scales -= 8;
  }
  return status;
}

kvlab_status traits_reserved(const kvlab_codec* codec, kvlab_codec_traits* out) {
  const kvlab_status status = kvlab::detail::CodecTable<Misbehave>::traits(codec, out);
  if (reinterpret_cast<const Misbehave*>(codec)->how == How::reserved_trait) out->reserved = 7;
  return status;
}

constexpr kvlab_codec_functions make_functions() {
  kvlab_codec_functions functions = kvlab::detail::CodecTable<Misbehave>::functions;
  functions.encode = &encode_wrong_sum;
  functions.traits = &traits_reserved;
  return functions;
}
constexpr kvlab_codec_functions functions = make_functions();

constexpr kvlab_descriptor describe() {
  kvlab_descriptor d = kvlab::detail::describe<Misbehave>();
  d.codec = &functions;
  return d;
}

}  // namespace

extern "C" KVLAB_EXPORT constexpr kvlab_descriptor kvlab_plugin = describe();
