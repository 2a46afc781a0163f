// A selector whose scores are NaN.
#if !defined(MISJUDGE_ID)
#define MISJUDGE_ID "misjudge"
#endif
#include <kvlab/plugin.hpp>

#include <algorithm>
#include <limits>

namespace {

struct Misjudge : kvlab::Selector {
  static constexpr kvlab::Info info{.id = MISJUDGE_ID, .version = "1", .summary = "a selector for tests"};
  void scores(const kvlab::HeadView& /*head*/, std::span<float> out) const {
    std::fill(out.begin(), out.end(), std::numeric_limits<float>::quiet_NaN());
  }
};

}  // namespace

KVLAB_PLUGIN(Misjudge)
