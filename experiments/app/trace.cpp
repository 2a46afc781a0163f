#include <algorithm>
#include <iostream>

#include "experiments/app/commands.hpp"
#include "experiments/workloads/trace/trace.hpp"

namespace kvlab {
namespace {

const char* text_of(RopeStyle style) {
  return style == RopeStyle::none ? "none" : style == RopeStyle::half ? "half" : "interleaved";
}

void print_trace(const std::string& file) {
  const auto [stamp, hash, header] = check_trace(file);
  const auto observed = std::count_if(header.query_positions.begin(), header.query_positions.end(),
                                      [&](auto position) { return position < header.prefill_tokens; });
  std::cout << "model       " << header.model << " (" << header.model_license << ")\n"
            << "text        " << header.text << '\n'
            << "shape       " << header.sequences << " sequences, " << header.tokens << " tokens, prefill "
            << header.prefill_tokens << '\n'
            << "heads       " << header.kv_heads << " KV, " << header.query_heads << " query, head_dim "
            << header.head_dim << ", " << name_of(header.dtype) << '\n'
            << "queries     " << observed << " observed, "
            << static_cast<std::int64_t>(header.query_positions.size()) - observed << " judged, per query head\n"
            << "RoPE        " << text_of(header.rope_style) << ", " << 2 * header.inv_freq.size() << " channels, theta "
            << header.rope_theta << "; attention scale " << header.attention_scale << '\n'
            << "layers     ";
  for (const auto& layer : header.layers) {
    std::cout << ' ' << layer.layer << (layer.window > 0 ? " (window " + std::to_string(layer.window) + ")" : "");
  }
  std::cout << " of " << header.model_layers << "\ncontent     " << hash << "; all values finite\n";
}

}  // namespace

void add_trace(CLI::App& cli, App& /*app*/) {
  auto* command = cli.add_subcommand("trace", "what a recorded KV cache holds, checked");
  auto file = std::make_shared<std::string>();
  command->add_option("FILE", *file, "a trace, HDF5")->required();
  command->callback([file] { print_trace(*file); });
}

}  // namespace kvlab
