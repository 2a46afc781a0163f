// A selector that is right (the largest first channel of a key stays) but for the flaw that the environment's
// KVLAB_TEST_FLAW names.
#include <kvlab/plugin.hpp>

#include <atomic>
#include <cstdlib>
#include <limits>
#include <string_view>
#include <vector>

namespace {

bool flaw(std::string_view name) {
  const char* wanted = std::getenv("KVLAB_TEST_FLAW");
  return wanted != nullptr && name == wanted;
}

struct FlawedSelector : kvlab::Selector {
  static constexpr kvlab::Info info{.id = "flawed_selector", .version = "1", .summary = "a selector for tests"};

  void start() {
    if (flaw("refuses_all")) throw kvlab::Unsupported("not for me");
  }
  [[nodiscard]] static unsigned reads() { return KVLAB_READS_KEYS; }
  [[nodiscard]] static unsigned scope() { return KVLAB_SCOPE_TOKEN; }

  void scores(const kvlab::HeadView& head, std::span<float> out) const {
    std::vector<float> row(head.keys.channels);
    std::vector<float> value(layer.head_dim_values);
    for (std::uint64_t t = 0; t < out.size(); ++t) {
      head.keys.read(t, row);
      out[t] = row[0];
      if (flaw("reads_what_it_does_not_declare")) {
        head.values.read(t, value);
        out[t] += value[0];
      }
      if (flaw("depends_on_others")) out[t] += static_cast<float>(out.size());
    }
    if (flaw("is_nan")) out[0] = std::numeric_limits<float>::quiet_NaN();
    if (flaw("writes_positions")) const_cast<std::uint32_t*>(head.positions.data())[0] = 1;
    if (flaw("counts")) {
      static std::atomic<int> calls{0};
      out[0] = static_cast<float>(++calls);
    }
    if (flaw("hangs")) {
      for (const volatile bool forever = true; forever;) {
      }
    }
  }
};

}  // namespace

KVLAB_PLUGIN(FlawedSelector)
