#include "experiments/plan/resolve.hpp"

#include <algorithm>

#include "experiments/config/reader.hpp"

namespace kvlab {
namespace {

constexpr std::int64_t most_tokens = std::int64_t{1} << 31;

class Resolver {
 public:
  Resolver(std::string what, const Registry& registry) : what_(std::move(what)), registry_(registry) {}

  ResolvedPipeline resolve(const Node& tree) {
    MapReader reader(tree, what_);
    read_cache(reader.optional("cache"));
    read_select(reader.optional("select"));
    read_codecs(reader.optional("codec"), reader.optional("adaptive"));
    reader.finish();
    return std::move(resolved_);
  }

 private:
  void read_cache(const Node* node) {
    if (node != nullptr) {
      MapReader reader(*node, "the cache of " + what_);
      resolved_.pipeline.sinks = static_cast<std::uint64_t>(reader.integer("sinks", 0, 0, most_tokens));
      resolved_.pipeline.tail = static_cast<std::uint64_t>(reader.integer("tail", 0, 0, most_tokens));
      resolved_.pipeline.async = reader.boolean("async", false);
      reader.finish();
    }
    const Pipeline& pipeline = resolved_.pipeline;
    resolved_.effective["cache"] = {{"sinks", pipeline.sinks}, {"tail", pipeline.tail}, {"async", pipeline.async}};
  }

  void read_select(const Node* node) {
    resolved_.effective["select"] = Json::array();
    if (node == nullptr) return;
    for (const auto& item : require_list(*node, "the select of " + what_).items) {
      MapReader reader(item, "a selector of " + what_);
      SelectStep step;
      Json effective;
      step.selector = read_method(reader, MethodKind::selector, effective);
      step.budget = read_budget(reader, effective);
      finish(reader, *step.selector.method);
      resolved_.pipeline.select.push_back(std::move(step));
      resolved_.effective["select"].push_back(std::move(effective));
    }
  }

  TokenBudget read_budget(MapReader& reader, Json& effective) {
    const Node* tokens = reader.optional("tokens");
    const Node* keep = reader.optional("keep");
    if ((tokens == nullptr) == (keep == nullptr)) {
      refuse(reader.node(), reader.what() + " needs a budget: 'tokens' or 'keep', and not both");
    }
    TokenBudget budget;
    if (tokens != nullptr) {
      budget.tokens = static_cast<std::uint64_t>(integer_of(*tokens, "tokens", 0, most_tokens));
      effective["tokens"] = *budget.tokens;
    } else {
      budget.keep = real_of(*keep, "keep");
      if (budget.keep <= 0 || budget.keep > 1) {
        refuse(*keep, "keep is " + keep->scalar + "; valid: above 0 and at most 1, the share of tokens that stay");
      }
      effective["keep"] = budget.keep;
    }
    return budget;
  }

  void read_codecs(const Node* codec, const Node* adaptive) {
    resolved_.effective["codec"] = Json::object();
    if (adaptive != nullptr) {
      if (codec != nullptr) {
        throw InputError(adaptive->key_place +
                         ": 'adaptive' stands beside 'codec'; give one of them: its first codec is "
                         "the one to begin with");
      }
      read_adaptive(*adaptive);
    } else if (codec != nullptr) {
      const Rung both = read_codec(*codec, "the codec of " + what_, resolved_.effective["codec"]);
      resolved_.pipeline.keys = both.keys;
      resolved_.pipeline.values = both.values;
    }
  }

  // [{above_tokens, codec, recode}, ...] or {bytes_per_sequence, ladder: [codec, ...]}
  void read_adaptive(const Node& node) {
    Json& effective = resolved_.effective["adaptive"];
    const std::string what = "the adaptive of " + what_;
    if (node.is_list()) {
      read_ladder(node, what, effective);
      return;
    }
    MapReader reader(node, what);
    resolved_.pipeline.bytes_per_sequence = bytes_of(reader.required("bytes_per_sequence"), "bytes_per_sequence");
    effective["bytes_per_sequence"] = resolved_.pipeline.bytes_per_sequence;
    read_ladder(reader.required("ladder"), "the ladder of " + what_, effective["ladder"]);
    reader.finish();
  }

  void read_ladder(const Node& node, const std::string& what, Json& effective) {
    const auto& items = require_list(node, what).items;
    if (items.empty() || items.size() > most_rungs) {
      refuse(node,
             what + " has " + std::to_string(items.size()) + " codecs; valid: 1 .. " + std::to_string(most_rungs));
    }
    effective = Json::array();
    for (const auto& item : items) {
      Rung rung = read_rung(item, what, effective.emplace_back(Json()));
      const Rung& first = resolved_.pipeline.ladder.empty() ? rung : resolved_.pipeline.ladder.front();
      if (rung.keys.has_value() != first.keys.has_value() || rung.values.has_value() != first.values.has_value()) {
        refuse(item, what + ": a role that has a codec in one place has one in all");
      }
      resolved_.pipeline.ladder.push_back(std::move(rung));
    }
  }

  Rung read_rung(const Node& item, const std::string& what, Json& effective) {
    const bool by_bytes = resolved_.pipeline.bytes_per_sequence > 0;
    const std::string codec_of = "a codec of " + what;
    if (by_bytes && item.find("codec") == nullptr) return read_codec(item, codec_of, effective);
    MapReader reader(item, "an entry of " + what);
    if (by_bytes) {
      Rung rung = read_codec(reader.required("codec"), codec_of, effective["codec"]);
      reader.finish();
      return rung;
    }
    const Node& above = reader.required("above_tokens");
    const std::uint64_t tokens = static_cast<std::uint64_t>(integer_of(above, "above_tokens", 0, most_tokens));
    const auto& before = resolved_.pipeline.ladder;
    if (before.empty() ? tokens != 0 : tokens <= before.back().above_tokens) {
      refuse(above, "above_tokens is " + above.scalar + "; valid: " +
                        (before.empty() ? "0, in the first entry"
                                        : "more than the entry before, " + std::to_string(before.back().above_tokens)));
    }
    effective["above_tokens"] = tokens;
    Rung rung = read_codec(reader.required("codec"), codec_of, effective["codec"]);
    rung.above_tokens = tokens;
    rung.recode = reader.boolean("recode", false);
    if (rung.recode && before.empty()) {
      refuse(*item.find("recode"), "recode is true; valid: false, the first entry has no blocks before it");
    }
    effective["recode"] = rung.recode;
    reader.finish();
    return rung;
  }

  // One for keys and values, or one each; a role without stays raw.
  Rung read_codec(const Node& node, const std::string& what, Json& effective) {
    require_map(node, what);
    effective = Json::object();
    Rung rung;
    const bool split = node.find("keys") != nullptr || node.find("values") != nullptr;
    if (!split) {
      if (node.find("method") == nullptr) refuse(node, what + " needs 'method', or 'keys' and 'values'");
      rung.keys = rung.values = read_one_codec(node, what, effective);
      return rung;
    }
    if (const Node* method = node.find("method")) {
      throw InputError(method->key_place + ": 'method' stands beside 'keys' or 'values'; give one or the others");
    }
    MapReader reader(node, what);
    const auto read_role = [&](const char* role) -> std::optional<MethodSpec> {
      const Node* own = reader.optional(role);
      if (own == nullptr) return std::nullopt;
      return read_one_codec(*own, what + ", " + role, effective[role]);
    };
    rung.keys = read_role("keys");
    rung.values = read_role("values");
    reader.finish();
    return rung;
  }

  MethodSpec read_one_codec(const Node& node, const std::string& what, Json& effective) {
    MapReader reader(node, what);
    MethodSpec spec = read_method(reader, MethodKind::codec, effective);
    finish(reader, *spec.method);
    return spec;
  }

  MethodSpec read_method(MapReader& reader, MethodKind kind, Json& effective) {
    const Node& name = reader.required("method");
    const Method& method = method_at(name, kind);
    MethodSpec spec{&method, {}};
    for (const auto& parameter : method.parameters) spec.values.push_back(reader.value(parameter));
    effective["method"] = method.id;
    effective.update(to_json(method.parameters, spec.values));
    auto& used = resolved_.methods;
    if (std::find(used.begin(), used.end(), &method) == used.end()) used.push_back(&method);
    return spec;
  }

  const Method& method_at(const Node& name, MethodKind kind) {
    const std::string& id = scalar_of(name, "method");
    try {
      return find_method(registry_, kind, id);
    } catch (const InputError& error) {
      refuse(name, error.what());
    }
  }

  // An unknown key is taken for a parameter of the method.
  static void finish(const MapReader& reader, const Method& method) {
    try {
      reader.finish();
    } catch (const InputError& error) {
      throw InputError(std::string(error.what()) + " (kvlab describe " + method.id + " lists the parameters)");
    }
  }

  std::string what_;
  const Registry& registry_;
  ResolvedPipeline resolved_;
};

}  // namespace

ResolvedPipeline resolve_pipeline(const Node& tree, const std::string& what, const Registry& registry) {
  return Resolver(what, registry).resolve(tree);
}

}  // namespace kvlab
