// A selector whose initialiser notes which process it runs in: a line in the file that KVLAB_TEST_LOADS names.
#include <kvlab/plugin.hpp>

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>

namespace {

struct Loader : kvlab::Selector {
  static constexpr kvlab::Info info{.id = "loader", .version = "1", .summary = "a selector for tests"};
  void scores(const kvlab::HeadView& /*head*/, std::span<float> out) const { std::fill(out.begin(), out.end(), 0.0F); }
};

struct Note {
  Note() {
    if (const char* file = std::getenv("KVLAB_TEST_LOADS"); file != nullptr) {
      std::ofstream(file, std::ios::app) << getpid() << '\n';
    }
  }
} const note;

}  // namespace

KVLAB_PLUGIN(Loader)
