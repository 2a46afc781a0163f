// A selector that is right but for one thing, chosen by a FLAW_ macro.
#include <kvlab/plugin.hpp>

#include <array>
#include <cstdlib>

namespace {

struct Fine : kvlab::Selector {
  int number;
  static constexpr kvlab::Info info{.id = "fine", .version = "1", .summary = "right but for one thing"};
  static constexpr auto parameters() {
    return std::tuple{kvlab::integer(&Fine::number, "number", 1, kvlab::Range{0, 2}, "1", "a number")};
  }
  void scores(const kvlab::HeadView& /*head*/, std::span<float> out) const { std::fill(out.begin(), out.end(), 0.0F); }
};

[[maybe_unused]] const void* every_ability(const char* /*id*/) { return &Fine::info; }

constexpr std::array<kvlab_parameter, 2> declare_parameters() {
  const auto one = kvlab::integer(&Fine::number, "number", 1, kvlab::Range{0, 2}, "1", "a number").declared;
  std::array<kvlab_parameter, 2> parameters{one, one};
#if defined(FLAW_PARAMETER_NAME)
  parameters[0].name = "keep";
#elif defined(FLAW_PARAMETER_TYPE)
  parameters[0].type = 4;
#elif defined(FLAW_PARAMETER_DEFAULT)
  parameters[0].default_value.i = 3;
#endif
  return parameters;
}
constexpr auto parameters = declare_parameters();

[[maybe_unused]] constexpr kvlab_selector_functions with_state() {
  kvlab_selector_functions functions = kvlab::detail::SelectorTable<Fine>::functions;
  functions.state_per_token = 4;
  return functions;
}
[[maybe_unused]] constexpr kvlab_selector_functions stateful = with_state();

[[maybe_unused]] constexpr kvlab_selector_functions without_scope() {
  kvlab_selector_functions functions = kvlab::detail::SelectorTable<Fine>::functions;
  functions.scope = nullptr;
  return functions;
}
[[maybe_unused]] constexpr kvlab_selector_functions scopeless = without_scope();

constexpr kvlab_descriptor describe() {
  kvlab_descriptor d = kvlab::detail::describe<Fine>();
  d.parameters = parameters.data();
#if defined(FLAW_MAGIC)
  d.magic = 1;
#elif defined(FLAW_VERSION)
  d.abi_version = 99;
#elif defined(FLAW_SIZE)
  d.struct_size = 16;
#elif defined(FLAW_ID)
  d.id = "Not A Name";
#elif defined(FLAW_KIND)
  d.kind = 3;
#elif defined(FLAW_FUNCTIONS)
  d.selector = nullptr;
#elif defined(FLAW_PARAMETER_TWICE)
  d.parameter_count = 2;
#elif defined(FLAW_RESERVED_ABILITY)
  d.ability = &every_ability;
#elif defined(FLAW_STATE_PER_TOKEN)
  d.selector = &stateful;
#elif defined(FLAW_NULL_SCOPE)
  d.selector = &scopeless;
#elif defined(FLAW_OPTIMIZED_BY_TWO)
  d.optimized = 2;
#elif defined(FLAW_NULL_STRING)
  d.summary = nullptr;
#endif
  return d;
}

#if defined(FLAW_CRASH_WHEN_OPENED)
const bool crashed = [] {
  std::abort();
  return true;
}();
#endif

}  // namespace

extern "C" KVLAB_EXPORT constexpr kvlab_descriptor kvlab_plugin = describe();
