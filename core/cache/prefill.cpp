#include "core/cache/prefill.hpp"

#include <algorithm>
#include <numeric>
#include <utility>

namespace kvlab {
namespace {

// Memory that is larger than caches is written past them.
constexpr std::uint64_t beyond_caches = std::uint64_t{64} << 20;

bool are_neighbours(std::span<const std::uint32_t> tokens) {
  return tokens.empty() || tokens.back() - tokens.front() + 1 == tokens.size();
}

// One head on its way: what is kept of it, then what stands.
struct HeadPrefill {
  std::uint32_t sequence = 0;  // of the input
  std::uint32_t kv_head = 0;
  std::vector<std::uint32_t> kept;  // tokens of the input, where there are selectors
  std::vector<std::uint32_t> stay;  // of those, by index
  std::vector<float> scores;
  std::vector<std::vector<float>> kept_scores;  // per selector, of the kept tokens
  Layout keys;
  Layout values;
  Work work;
  Head head;
};

class Prefilling {
 public:
  Prefilling(const Layer& layer, const Prefill& input, std::uint64_t sequences, std::uint8_t rung, Arena& arena,
             Backend& backend)
      : layer_(layer),
        input_(input),
        rule_(layer.rules[rung]),
        arena_(arena),
        backend_(backend),
        heads_(sequences * layer.shape.kv_heads) {}

  std::vector<Head> run() {
    for (std::size_t i = 0; i < heads_.size(); ++i) {
      heads_[i].sequence = static_cast<std::uint32_t>(i / layer_.shape.kv_heads);
      heads_[i].kv_head = static_cast<std::uint32_t>(i % layer_.shape.kv_heads);
    }
    if (!keeps_all()) select();
    lay_out();
    for_heads([&](HeadPrefill& head) { store(head); });
    run_work();
    std::vector<Head> made;
    for (auto& head : heads_) {
      take_blocks(head);
      made.push_back(std::move(head.head));
    }
    return made;
  }

 private:
  // ---- selection ---------------------------------------------------------------------------------------------------

  void select() {
    for_heads([&](HeadPrefill& head) {
      head.kept.resize(input_.tokens());
      std::iota(head.kept.begin(), head.kept.end(), 0U);
      head.kept_scores.resize(layer_.selectors.size());
      ask_scores(0, head);
    });
    run_work();
    for (std::size_t step = 0; step < layer_.selectors.size(); ++step) {
      checked_ |= layer_.selectors[step].reads();
      const bool is_last = step + 1 == layer_.selectors.size();
      for_heads([&](HeadPrefill& head) {
        choose(step, head);
        if (!is_last) ask_scores(step + 1, head);
      });
      if (!is_last) run_work();
    }
  }

  void ask_scores(std::size_t step, HeadPrefill& head) {
    const SelectorInstance& selector = layer_.selectors[step];
    head.scores.resize(head.kept.size());
    ScoreTask task;
    task.selector = &selector;
    task.dtype = layer_.shape.dtype;
    task.sequence = head.sequence;
    task.kv_head = head.kv_head;
    task.positions = head.kept.data();
    task.tokens = head.kept.size();
    task.out = head.scores.data();
    for (const std::uint32_t which : both_roles) {
      const bool is_keys = which == KVLAB_ROLE_KEYS;
      if ((selector.reads() & (is_keys ? KVLAB_READS_KEYS : KVLAB_READS_VALUES)) == 0) continue;
      (is_keys ? task.keys : task.values) = {add_source(which, head, 0, head.kept.size()), 1};
      (is_keys ? task.keys_role : task.values_role) = &layer_.role(which);
      (is_keys ? task.keys_origin : task.values_origin) = origin(which, head);
    }
    if ((selector.reads() & KVLAB_READS_QUERIES) != 0) task.observed = observed(head);
    head.work.scores.push_back(task);
  }

  [[nodiscard]] kvlab_queries observed(const HeadPrefill& head) const {
    const LayerShape& shape = layer_.shape;
    const QueryTensor& given = input_.observed;
    const std::uint64_t stride = given.count * shape.head_dim_keys;
    kvlab_queries queries{};
    queries.base =
        given.base +
        (std::uint64_t{head.sequence} * shape.query_heads + std::uint64_t{head.kv_head} * shape.group()) * stride;
    queries.heads = shape.group();
    queries.count = given.count;
    queries.channels = shape.head_dim_keys;
    queries.head_stride = static_cast<std::int64_t>(stride);
    queries.query_stride = shape.head_dim_keys;
    queries.positions = given.positions_of(head.sequence).data();
    return queries;
  }

  void choose(std::size_t step, HeadPrefill& head) {
    const Pipeline& pipeline = layer_.pipeline;
    const SelectorInstance& selector = layer_.selectors[step];
    head.work.clear();
    select_highest(head.scores, pipeline.sinks, pipeline.tail, pipeline.select[step].budget.of(head.kept.size()),
                   head.stay);
    if (layer_.decodes && selector.keeps_scores()) head.kept_scores[step] = head.scores;
    if (selector.scope() == KVLAB_SCOPE_OBSERVED) head.head.unobserved += head.kept.size() - head.stay.size();
    // Of those that stay: this step's scores and the earlier steps'.
    for (auto& scores : head.kept_scores) {
      if (scores.empty()) continue;
      for (std::size_t i = 0; i < head.stay.size(); ++i) scores[i] = scores[head.stay[i]];
      scores.resize(head.stay.size());
    }
    for (auto& index : head.stay) index = head.kept[index];
    std::swap(head.kept, head.stay);
  }

  // ---- storing -----------------------------------------------------------------------------------------------------

  [[nodiscard]] bool keeps_all() const { return layer_.selectors.empty() || input_.tokens() == 0; }
  [[nodiscard]] std::uint64_t slots(const HeadPrefill& head) const {
    return keeps_all() ? input_.tokens() : head.kept.size();
  }

  void lay_out() {
    std::uint64_t capacity = 0;
    for (auto& head : heads_) {
      for (const std::uint32_t which : both_roles) {
        const Role& role = layer_.role(which);
        Layout& layout = which == KVLAB_ROLE_KEYS ? head.keys : head.values;
        layout = prefill_layout(layer_.layout_rule(role, rule_), slots(head), input_.tokens());
        capacity += capacity_of(role, layout);
      }
    }
    past_caches_ = capacity >= beyond_caches;
    arena_.prepare(capacity);
  }

  void store(HeadPrefill& head) {
    head.head.scores.resize(layer_.selectors.size());
    if (keeps_all()) {
      head.head.positions = Positions(input_.tokens());
    } else {
      head.head.positions = Positions(head.kept, input_.tokens(), arena_, unpromised_, head.work);
      for (std::size_t step = 0; step < head.kept_scores.size(); ++step) {
        const std::span<const float> scores = head.kept_scores[step];
        if (!scores.empty()) head.head.scores[step].write(0, scores, arena_, unpromised_, head.work);
      }
    }
    add_role(KVLAB_ROLE_KEYS, head.keys, head);
    add_role(KVLAB_ROLE_VALUES, head.values, head);
  }

  static void take_blocks(HeadPrefill& head) {
    auto made = head.work.encodes.begin();
    for (auto* state : {&head.head.keys, &head.head.values}) {
      for (auto& segment : state->segments) {
        if (!segment.encoded) continue;
        const std::uint64_t first = segment.first;
        segment = std::move((made++)->made);
        segment.first = first;
      }
    }
  }

  // Chunks and blocks in their order; a block's segment is filled in once it is made.
  void add_role(std::uint32_t which, const Layout& layout, HeadPrefill& head) {
    RoleState& state = head.head.of(which);
    state.cut = layout.cut;
    auto chunk = layout.chunks.begin();
    for (; chunk != layout.chunks.end() && (layout.blocks.empty() || chunk->first < layout.from); ++chunk) {
      add_chunk(which, *chunk, head);
    }
    std::uint64_t first = layout.from;
    for (const BlockPlace& block : layout.blocks) {
      add_block(which, first, block, head);
      first += block.tokens;
    }
    for (; chunk != layout.chunks.end(); ++chunk) add_chunk(which, *chunk, head);
  }

  void add_chunk(std::uint32_t which, const ChunkPlace& chunk, HeadPrefill& head) {
    const Role& role = layer_.role(which);
    Segment segment = open_chunk(role, chunk, arena_, unpromised_);
    head.work.copies.push_back({&role, add_source(which, head, chunk.first, chunk.tokens), segment.piece->data(),
                                past_caches_, origin(which, head)});
    head.head.of(which).segments.push_back(std::move(segment));
  }

  void add_block(std::uint32_t which, std::uint64_t first, const BlockPlace& block, HeadPrefill& head) {
    const Role& role = layer_.role(which);
    const CodecInstance& codec = role.codecs[block.rung];
    EncodeTask task;
    task.role = &role;
    task.rung = block.rung;
    task.kv_head = head.kv_head;
    task.tokens = block.tokens;
    task.sources = {add_source(which, head, first, block.tokens), 1};
    task.positions = head.head.positions.view();
    task.slot = first;
    task.past_caches = past_caches_;
    task.origin = origin(which, head);
    if (codec.traits().fills_bound != 0) {
      const std::uint64_t bytes = codec.bound(block.tokens);
      task.piece = arena_.allocate(bytes, bytes);
    }
    head.work.encodes.push_back(std::move(task));
    Segment segment;
    segment.first = first;
    segment.tokens = block.tokens;
    segment.encoded = true;
    head.head.of(which).segments.push_back(std::move(segment));
  }

  // ---- both --------------------------------------------------------------------------------------------------------

  // The input's rows of the slots [first, first + count).
  std::size_t add_source(std::uint32_t which, HeadPrefill& head, std::uint64_t first, std::uint64_t count) const {
    const KvTensor& tensor = which == KVLAB_ROLE_KEYS ? input_.keys : input_.values;
    Source source;
    source.rows = tensor.head(head.sequence, head.kv_head);
    source.first = first;
    source.count = count;
    if (!head.kept.empty()) {
      const auto tokens = std::span(head.kept).subspan(first, count);
      if (are_neighbours(tokens)) {
        source.first = tokens.empty() ? 0 : tokens.front();
      } else {
        source.picked = tokens.data();
      }
    }
    head.work.sources.push_back(source);
    return head.work.sources.size() - 1;
  }

  // What a selector has read is finite.
  [[nodiscard]] Origin origin(std::uint32_t which, const HeadPrefill& head) const {
    const std::uint32_t read = which == KVLAB_ROLE_KEYS ? KVLAB_READS_KEYS : KVLAB_READS_VALUES;
    if ((checked_ & read) != 0) return {};
    return {&layer_.shape, which, head.sequence, head.kv_head};
  }

  // A few tokens are looked at sooner than another thread wakes.
  template <class Body>
  void for_heads(const Body& body) {
    constexpr std::uint64_t few_tokens = 4096;
    if (heads_.size() * input_.tokens() <= few_tokens) {
      for (auto& head : heads_) body(head);
      return;
    }
    backend_.each(heads_.size(), [&](std::size_t i, std::size_t /*thread*/) { body(heads_[i]); });
  }

  void run_work() {
    std::vector<Work*> works;
    for (auto& head : heads_) works.push_back(&head.work);
    backend_.run(works, arena_);
    backend_.synchronize();
  }

  const Layer& layer_;
  const Prefill& input_;
  const RungRule& rule_;
  Arena& arena_;
  Backend& backend_;
  Promise unpromised_;  // none: a prefill replaces what there was, and takes what the budget has
  std::vector<HeadPrefill> heads_;
  std::uint32_t checked_ = 0;  // KVLAB_READS_KEYS, _VALUES: a selector read all that is kept, and it is finite
  bool past_caches_ = false;
};

}  // namespace

std::vector<Head> prefill_heads(const Layer& layer, const Prefill& input, std::uint64_t sequences, std::uint8_t rung,
                                Arena& arena, Backend& backend) {
  return Prefilling(layer, input, sequences, rung, arena, backend).run();
}

}  // namespace kvlab
