#include "experiments/plan/resolve.hpp"

#include <algorithm>

#include "core/base/nearest.hpp"
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
    read_codec(reader.optional("codec"));
    reader.finish();
    return std::move(resolved_);
  }

 private:
  void read_cache(const Node* node) {
    if (node != nullptr) {
      MapReader reader(*node, "the cache of " + what_);
      resolved_.pipeline.sinks = static_cast<std::uint64_t>(reader.integer("sinks", 0, 0, most_tokens));
      resolved_.pipeline.tail = static_cast<std::uint64_t>(reader.integer("tail", 0, 0, most_tokens));
      reader.finish();
    }
    resolved_.effective["cache"] = {{"sinks", resolved_.pipeline.sinks}, {"tail", resolved_.pipeline.tail}};
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

  Budget read_budget(MapReader& reader, Json& effective) {
    const Node* tokens = reader.optional("tokens");
    const Node* keep = reader.optional("keep");
    if ((tokens == nullptr) == (keep == nullptr)) {
      refuse(reader.node(), reader.what() + " needs a budget: 'tokens' or 'keep', and not both");
    }
    Budget budget;
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

  void read_codec(const Node* node) {
    resolved_.effective["codec"] = Json::object();
    if (node == nullptr) return;
    require_map(*node, "the codec of " + what_);
    const bool split = node->find("keys") != nullptr || node->find("values") != nullptr;
    if (!split) {
      if (node->find("method") == nullptr)
        refuse(*node, "the codec of " + what_ + " needs 'method', or 'keys' and 'values'");
      resolved_.pipeline.keys = read_one_codec(*node, "the codec of " + what_, resolved_.effective["codec"]);
      resolved_.pipeline.values = resolved_.pipeline.keys;
      return;
    }
    if (const Node* method = node->find("method")) {
      throw InputError(method->key_place + ": 'method' stands beside 'keys' or 'values'; give one or the others");
    }
    MapReader reader(*node, "the codec of " + what_);
    if (const Node* keys = reader.optional("keys")) {
      resolved_.pipeline.keys =
          read_one_codec(*keys, "the codec of keys of " + what_, resolved_.effective["codec"]["keys"]);
    }
    if (const Node* values = reader.optional("values")) {
      resolved_.pipeline.values =
          read_one_codec(*values, "the codec of values of " + what_, resolved_.effective["codec"]["values"]);
    }
    reader.finish();
  }

  MethodSpec read_one_codec(const Node& node, const std::string& what, Json& effective) {
    MapReader reader(node, what);
    MethodSpec spec = read_method(reader, MethodKind::codec, effective);
    finish(reader, *spec.method);
    return spec;
  }

  MethodSpec read_method(MapReader& reader, MethodKind kind, Json& effective) {
    const Node& name = reader.required("method");
    const Method& method = find_method(name, scalar_of(name, "method"), kind);
    MethodSpec spec{&method, {}};
    for (const auto& parameter : method.parameters) spec.values.push_back(reader.value(parameter));
    effective["method"] = method.id;
    effective.update(to_json(method.parameters, spec.values));
    auto& used = resolved_.methods;
    if (std::find(used.begin(), used.end(), &method) == used.end()) used.push_back(&method);
    return spec;
  }

  const Method& find_method(const Node& at, const std::string& id, MethodKind kind) {
    const Method* method = registry_.find(id);
    if (method != nullptr && method->kind == kind) return *method;
    if (method != nullptr) {
      refuse(at, "'" + id + "' is a " + name_of(method->kind) + ", and a " + name_of(kind) + " stands here" +
                     suggestion(id, registry_.ids(kind)));
    }
    for (const auto& candidate : registry_.candidates()) {
      if (candidate.state == Registry::Candidate::State::refused && candidate.path.stem() == id) {
        refuse(at, "method '" + id + "' is not usable: " + candidate.path.string() + ": " + candidate.reason);
      }
    }
    refuse(at, "there is no " + std::string(name_of(kind)) + " '" + id + "'" + suggestion(id, registry_.ids(kind)));
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

Json to_json(const std::vector<Parameter>& parameters, const std::vector<kvlab_value>& values) {
  Json json = Json::object();
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const Parameter& parameter = parameters[i];
    switch (parameter.type) {
      case ParameterType::integer:
        json[parameter.name] = values[i].i;
        break;
      case ParameterType::real:
        json[parameter.name] = values[i].f;
        break;
      case ParameterType::boolean:
        json[parameter.name] = values[i].i != 0;
        break;
      case ParameterType::choice:
        json[parameter.name] = text_of(parameter, values[i]);
        break;
    }
  }
  return json;
}

Node to_node(const Json& json, const std::string& place) {
  Node node;
  node.place = place;
  node.key_place = place;
  if (json.is_object()) {
    node.kind = Node::Kind::map;
    for (const auto& [key, value] : json.items()) node.entries.emplace_back(key, to_node(value, place));
  } else if (json.is_array()) {
    node.kind = Node::Kind::list;
    for (const auto& value : json) node.items.push_back(to_node(value, place));
  } else if (!json.is_null()) {
    node.kind = Node::Kind::scalar;
    node.scalar = json.is_string()         ? json.get<std::string>()
                  : json.is_number_float() ? text_of(json.get<double>())
                                           : json.dump();
  }
  return node;
}

std::vector<std::pair<std::string, Json>> flatten(const Json& json, const std::string& prefix) {
  if (!json.is_structured()) return {{prefix, json}};
  std::vector<std::pair<std::string, Json>> leaves;
  std::size_t index = 0;
  for (const auto& [key, value] : json.items()) {
    const std::string name = json.is_array() ? std::to_string(index++) : key;
    for (auto& leaf : flatten(value, prefix.empty() ? name : prefix + "." + name)) leaves.push_back(std::move(leaf));
  }
  return leaves;
}

}  // namespace kvlab
