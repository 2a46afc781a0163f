#include <nlohmann/json.hpp>

#include "core/base/text.hpp"
#include "experiments/workloads/trace/trace.hpp"

namespace kvlab {

using nlohmann::json;

json to_json(const TraceHeader& header) {
  json layers = json::array();
  for (const TraceLayer& layer : header.layers) layers.push_back({layer.layer, layer.window});
  return {{"model", printable(header.model)},
          {"model_license", printable(header.model_license)},
          {"text", printable(header.text)},
          {"model_layers", header.model_layers},
          {"query_heads", header.query_heads},
          {"kv_heads", header.kv_heads},
          {"head_dim", header.head_dim},
          {"sequences", header.sequences},
          {"tokens", header.tokens},
          {"prefill_tokens", header.prefill_tokens},
          {"dtype", static_cast<int>(header.dtype)},
          {"attention_scale", header.attention_scale},
          {"rope_style", static_cast<int>(header.rope_style)},
          {"rope_theta", header.rope_theta},
          {"inv_freq", header.inv_freq},
          {"query_positions", header.query_positions},
          {"layers", layers}};
}

TraceHeader header_of(const json& from) {
  TraceHeader header;
  from.at("model").get_to(header.model);
  from.at("model_license").get_to(header.model_license);
  from.at("text").get_to(header.text);
  from.at("model_layers").get_to(header.model_layers);
  from.at("query_heads").get_to(header.query_heads);
  from.at("kv_heads").get_to(header.kv_heads);
  from.at("head_dim").get_to(header.head_dim);
  from.at("sequences").get_to(header.sequences);
  from.at("tokens").get_to(header.tokens);
  from.at("prefill_tokens").get_to(header.prefill_tokens);
  header.dtype = static_cast<Dtype>(from.at("dtype").get<int>());
  from.at("attention_scale").get_to(header.attention_scale);
  header.rope_style = static_cast<RopeStyle>(from.at("rope_style").get<int>());
  from.at("rope_theta").get_to(header.rope_theta);
  from.at("inv_freq").get_to(header.inv_freq);
  from.at("query_positions").get_to(header.query_positions);
  for (const json& layer : from.at("layers")) {
    header.layers.push_back({"", layer.at(0).get<std::uint32_t>(), layer.at(1).get<std::uint64_t>()});
  }
  return header;
}

}  // namespace kvlab
