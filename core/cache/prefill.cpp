#include "core/cache/prefill.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "core/cache/input.hpp"
#include "core/cache/select.hpp"

namespace kvlab {
namespace {

constexpr std::uint64_t raw_step = 256;  // rows

// A run of neighbours needs no copy: it is a view of the workload itself.
bool contiguous(std::span<const std::uint32_t> positions) {
  return positions.empty() || positions.back() - positions.front() + 1 == positions.size();
}

std::uint64_t role_capacity(const Role& role, std::uint64_t sinks, std::uint64_t tail, std::uint64_t kept) {
  if (!role.coded()) return Arena::padded(kept * role.row_bytes());
  const std::uint64_t raw = std::min(sinks + tail, kept);
  const std::uint64_t coded = kept - raw;
  std::uint64_t most = 0;  // of the rungs
  for (const auto& codec : role.codecs) {
    const std::uint64_t block = codec.traits().block_tokens;
    const std::uint64_t chunk = chunk_rows(block, 0);
    std::uint64_t bytes = (raw + chunk + tail / chunk) * role.row_bytes() + (2 + tail / chunk) * Arena::alignment;
    if (coded >= block) bytes += coded / block * Arena::padded(codec.bound(block));
    if (coded % block != 0) bytes += Arena::padded(codec.bound(coded % block));
    most = std::max(most, bytes);
  }
  return most;
}

}  // namespace

std::uint64_t head_capacity(const Pipeline& pipeline, const Role& keys, const Role& values, std::uint64_t tokens) {
  const std::uint64_t kept = pipeline.kept_of(tokens);
  const std::uint64_t positions = kept == tokens ? 0 : Arena::padded(kept * sizeof(std::uint32_t));
  return positions + role_capacity(keys, pipeline.sinks, pipeline.tail, kept) +
         role_capacity(values, pipeline.sinks, pipeline.tail, kept);
}

HeadPrefill::HeadPrefill(const Pipeline& pipeline, std::span<const SelectorInstance> selectors, const LayerShape& shape,
                         const Prefill& input, Arena& arena, Workspace& workspace, std::uint64_t sequence,
                         std::uint32_t kv_head, const PrefillOptions& options)
    : pipeline_(pipeline),
      selectors_(selectors),
      shape_(shape),
      input_(input),
      arena_(arena),
      workspace_(workspace),
      sequence_(sequence),
      kv_head_(kv_head),
      rule_(options.rule),
      past_caches_(options.past_caches),
      keep_scores_(options.keep_scores),
      kept_(workspace.kept) {}

void HeadPrefill::run(const Role& keys, const Role& values, Head& head) {
  Head made;
  made.scores.resize(selectors_.size());
  select(made);
  made.positions = Positions(kept_, input_.tokens, arena_);
  made.key_cut = store(keys, KVLAB_ROLE_KEYS, input_.keys, made.positions, made.keys);
  made.value_cut = store(values, KVLAB_ROLE_VALUES, input_.values, made.positions, made.values);
  head = std::move(made);
}

void HeadPrefill::select(Head& head) {
  kept_.resize(input_.tokens);
  std::iota(kept_.begin(), kept_.end(), 0U);
  if (kept_.empty()) return;  // there is nothing to score, and may be no query to score it with
  for (std::size_t step = 0; step < selectors_.size(); ++step) apply(step, head);
}

void HeadPrefill::apply(std::size_t step, Head& head) {
  const SelectorInstance& selector = selectors_[step];
  SelectorCall call{shape_, shape_.dtype, static_cast<std::uint32_t>(sequence_), kv_head_, kept_, {}, {}, {}};
  const std::uint32_t reads = selector.reads();
  if ((reads & KVLAB_READS_KEYS) != 0) {
    call.keys = rows(input_.keys, shape_.head_dim_keys, kept_, workspace_.rows);
    check(KVLAB_ROLE_KEYS, call.keys, kept_);
  }
  if ((reads & KVLAB_READS_VALUES) != 0) {
    call.values = rows(input_.values, shape_.head_dim_values, kept_, workspace_.more_rows);
    check(KVLAB_ROLE_VALUES, call.values, kept_);
  }
  checked_ |= reads;
  if ((reads & KVLAB_READS_QUERIES) != 0) call.observed = observed();
  const std::span<float> scores = call_selector(selector, call, workspace_);
  auto& stay = workspace_.survivors;
  select_highest(scores, pipeline_.sinks, pipeline_.tail, pipeline_.select[step].budget.of(kept_.size()), stay);
  if (keep_scores_) keep_scores(step, scores, stay, head);
  if (selector.scope() == KVLAB_SCOPE_OBSERVED) head.unobserved += kept_.size() - stay.size();
  for (auto& index : stay) index = kept_[index];
  std::swap(kept_, stay);
}

// Of those that stay: this step's and the earlier steps', where scores are kept.
void HeadPrefill::keep_scores(std::size_t step, std::span<const float> scores, std::span<const std::uint32_t> stay,
                              Head& head) {
  for (std::size_t i = 0; i < step; ++i) {
    if (!selectors_[i].keeps_scores()) continue;
    float* of_step = head.scores[i].resize(head.scores[i].size(), arena_);
    for (std::size_t t = 0; t < stay.size(); ++t) of_step[t] = of_step[stay[t]];
    head.scores[i].resize(stay.size(), arena_);
  }
  if (!selectors_[step].keeps_scores()) return;
  float* own = head.scores[step].resize(stay.size(), arena_);
  for (std::size_t t = 0; t < stay.size(); ++t) own[t] = scores[stay[t]];
}

// The queries of this head's group that a selector may see.
kvlab_queries HeadPrefill::observed() const {
  const QueryTensor& queries = input_.observed;
  const std::uint64_t head_size = queries.count() * shape_.head_dim_keys;
  const std::uint64_t first_head = sequence_ * shape_.query_heads + std::uint64_t{kv_head_} * shape_.group();
  return {queries.base + first_head * head_size,
          shape_.group(),
          queries.count(),
          shape_.head_dim_keys,
          static_cast<std::int64_t>(head_size),
          static_cast<std::int64_t>(shape_.head_dim_keys),
          queries.positions.data()};
}

// Where a selector read all rows of the role they have been looked at.
void HeadPrefill::check(std::uint32_t role, const TokenRows& rows, std::span<const std::uint32_t> tokens) const {
  const std::uint32_t read = role == KVLAB_ROLE_KEYS ? KVLAB_READS_KEYS : KVLAB_READS_VALUES;
  if ((checked_ & read) == 0) check_rows(shape_, role, rows, sequence_, kv_head_, tokens);
}

TokenRows HeadPrefill::rows(const KvTensor& tensor, std::uint64_t channels, std::span<const std::uint32_t> tokens,
                            Buffer& gathered) const {
  const std::uint64_t element = size_of(shape_.dtype);
  const TokenRows all{tensor.head(sequence_, kv_head_, shape_.dtype),
                      tensor.token_stride * static_cast<std::int64_t>(element)};
  if (contiguous(tokens)) return all.from(tokens.empty() ? 0 : tokens.front());
  const std::uint64_t row = channels * element;
  auto* copies = gathered.ensure<std::byte>(tokens.size() * row);
  for (std::size_t t = 0; t < tokens.size(); ++t) std::memcpy(copies + t * row, all.from(tokens[t]).base, row);
  return {copies, static_cast<std::int64_t>(row)};
}

// Returns the cut: where the raw tail starts.
std::uint64_t HeadPrefill::store(const Role& role, std::uint32_t which, const KvTensor& tensor,
                                 const Positions& positions, std::vector<Segment>& segments) {
  const HeadEncoder encoder(role, kv_head_, arena_, workspace_, past_caches_);
  const std::span<const std::uint32_t> kept(kept_);
  // Calls use(rows) and then looks at them, which costs least: they are in a cache, and what fetches them ahead is at
  // its work. A codec that failed for what is in them is not to blame.
  const auto with_rows = [&](std::uint64_t first, std::uint64_t count, const auto& use) {
    const auto tokens = kept.subspan(first, count);
    const TokenRows found = rows(tensor, role.channels, tokens, workspace_.rows);
    try {
      use(found);
    } catch (const MethodError&) {
      check(which, found, tokens);
      throw;
    }
    check(which, found, tokens);
  };
  const auto add_raw = [&](std::uint64_t first, std::uint64_t count, std::uint64_t room) {
    const Segment& segment = segments.emplace_back(encoder.open(first, count, room));
    for (std::uint64_t done = 0; done < count; done += raw_step) {
      const std::uint64_t now = std::min(count - done, raw_step);
      with_rows(first + done, now, [&](const TokenRows& rows) { encoder.fill(segment, done, rows, now); });
    }
  };
  const std::uint64_t total = kept.size();
  const std::uint64_t sinks = role.coded() ? std::min(pipeline_.sinks, total) : total;
  const std::uint64_t tail = role.coded() ? std::min(pipeline_.tail, total - sinks) : 0;
  if (sinks > 0) {
    add_raw(0, sinks, role.coded() ? pipeline_.sinks : sinks);
  }
  const auto add_block = [&](std::uint8_t rung, std::uint64_t first, std::uint64_t count) {
    const auto range = positions.range(first, count, workspace_.positions);
    with_rows(first, count,
              [&](const TokenRows& rows) { segments.push_back(encoder.block(rung, rows, range, first, count)); });
  };
  std::uint64_t cut = sinks;
  if (role.coded()) {
    while (const auto next = next_block(rule_, role, cut, tail, total, input_.tokens - total)) {
      add_block(next->rung, cut, next->tokens);
      cut += next->tokens;
    }
    if (cut < total - tail) add_block(rule_.at(input_.tokens), cut, total - tail - cut);
    cut = total - tail;
  }
  const std::uint64_t block = role.coded() ? role.block_tokens(rule_.at(input_.tokens)) : 1;
  for (std::uint64_t first = cut; first < total;) {
    const std::uint64_t room = chunk_rows(block, (first - cut) % block);
    const std::uint64_t count = std::min(room, total - first);
    add_raw(first, count, room);
    first += count;
  }
  return cut;
}

}  // namespace kvlab
