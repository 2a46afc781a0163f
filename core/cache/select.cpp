#include "core/cache/select.hpp"

namespace kvlab {
namespace {

kvlab_view view_of(const TokenRows& rows, Dtype dtype, std::uint64_t tokens, std::uint64_t channels) {
  kvlab_view view{};
  view.base = rows.base;
  view.dtype = static_cast<kvlab_dtype>(dtype);
  view.heads = 1;
  view.tokens = tokens;
  view.channels = channels;
  view.token_stride = rows.row_step / static_cast<std::int64_t>(size_of(dtype));
  return view;
}

}  // namespace

std::span<float> call_selector(const SelectorInstance& selector, const SelectorCall& call, Workspace& workspace) {
  const std::uint64_t tokens = call.positions.size();
  kvlab_selector_in in{};
  in.struct_size = sizeof in;
  in.kv_head = call.kv_head;
  in.sequence = call.sequence;
  in.tokens = tokens;
  in.positions = call.positions.data();
  const std::uint32_t reads = selector.reads();
  if ((reads & KVLAB_READS_KEYS) != 0) in.keys = view_of(call.keys, call.dtype, tokens, call.shape.head_dim_keys);
  if ((reads & KVLAB_READS_VALUES) != 0)
    in.values = view_of(call.values, call.dtype, tokens, call.shape.head_dim_values);
  if ((reads & KVLAB_READS_QUERIES) != 0) in.observed = call.observed;
  in.scratch = workspace.codec_scratch.ensure<std::byte>(selector.scratch(tokens, in.observed.count));
  const std::span scores(workspace.floats.ensure<float>(tokens), tokens);
  selector.scores(in, scores);
  return scores;
}

}  // namespace kvlab
