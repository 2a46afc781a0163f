#include "core/conformance/conformance.hpp"

#include <algorithm>

#include "core/base/child.hpp"
#include "core/conformance/checks.hpp"
#include "core/method/calls.hpp"

namespace kvlab::conformance {
namespace {

struct Check {
  CheckInfo info;
  void (*run)(const Method& method, const Place& place);
};

const std::vector<Check>& codec_checks() {
  static const std::vector<Check> checks{
      {{"accepts", "with its defaults, does it take some dtype, head_dim and role?"}, &accepts_something},
      {{"finite", "do blocks of any finite numbers decode to finite numbers, within all buffers?"}, &decodes_finite},
      {{"parts", "are tokens decoded alone what they are among all?"}, &decodes_in_parts},
      {{"repeats", "does the same give the same, from several threads too?"}, &repeats_itself},
      {{"layout", "are strides and hints without effect on the bytes?"}, &ignores_layout},
      {{"gather", "is what is left of a block lossless?"}, &gathers_losslessly},
      {{"attention", "is attention on the bytes that over the decoded rows?"}, &attends_as_it_decodes},
      {{"damage", "do damaged bytes harm nothing else?"}, &survives_damage},
      {{"positions", "may positions be any?"}, &takes_any_positions},
      {{"cache", "does a cache with it fill, grow and attend?"}, &works_in_a_cache}};
  return checks;
}

const std::vector<Check>& selector_checks() {
  static const std::vector<Check> checks{
      {{"scores", "does it score some tokens, from what it declares to read alone?"}, &scores_something},
      {{"repeats", "does the same give the same, from several threads too?"}, &scores_repeatedly},
      {{"scope", "does a score depend on what its scope says?"}, &keeps_to_its_scope},
      {{"cache", "does a cache with it fill, grow and evict?"}, &works_in_a_cache}};
  return checks;
}

const std::vector<Check>& all_of(MethodKind kind) {
  return kind == MethodKind::codec ? codec_checks() : selector_checks();
}

ChildLimits limits_of(const std::string& check, double seconds) {
  ChildLimits limits;
  limits.doing = "check '" + check + "'";
  limits.seconds = std::max(600.0, 20 * seconds);  // of a machine that is full of others
  limits.idle_seconds = 30;                        // for one that sleeps
  limits.cpu_seconds = seconds;
#if !defined(KVLAB_SANITIZED)  // a sanitizer's shadow takes terabytes of address space
  limits.memory = std::uint64_t{8} << 30;
#endif
  return limits;
}

}  // namespace

std::vector<CheckInfo> checks_of(MethodKind kind) {
  std::vector<CheckInfo> infos;
  for (const Check& check : all_of(kind)) infos.push_back(check.info);
  return infos;
}

Outcome check_method(const Method& method, const std::string& name, double seconds) {
  const auto& all = all_of(method.kind);
  const auto check = std::find_if(all.begin(), all.end(), [&](const Check& c) { return c.info.name == name; });
  const Place place;
  CallBoard board;
  const ChildResult result = in_child(
      [&] {
        board.publish();
        const Method loaded = load_library(method.path);
        check->run(loaded, place);
        return std::string();
      },
      limits_of(name, seconds));
  if (result.ok) return {name, true, ""};
  std::string reason = result.text;
  const std::string call = to_text(board.open());
  if (!call.empty()) reason += " in " + call;
  if (!place.text().empty()) reason += " (" + place.text() + ")";
  return {name, false, reason};
}

}  // namespace kvlab::conformance
