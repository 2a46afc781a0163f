#include "core/cache/evict.hpp"

#include <algorithm>

#include "core/cache/head_eviction.hpp"

namespace kvlab {
namespace {

// Sinks and tail stay whatever the budget: a short sequence may have one below them.
std::uint64_t of_budget(const Pipeline& pipeline, std::size_t step, std::uint64_t present) {
  return std::max(pipeline.select[step].budget.of(present), std::min(present, pipeline.sinks + pipeline.tail));
}

// All heads of a call that evict, step by step.
class Eviction {
 public:
  Eviction(const Layer& layer, Arena& arena, Promise& promise, Backend& backend)
      : layer_(layer), arena_(arena), promise_(promise), backend_(backend) {}

  void add(const HeadCall& call) {
    if (is_above_budget(layer_, call.head.kept(), call.total - call.head.unobserved)) heads_.emplace_back(call);
  }

  void run() {
    if (heads_.empty()) return;
    if (reads_rows()) settle([](const HeadEviction&) { return true; });
    choose();
    each([](HeadEviction& head) { head.mark(); });
    settle([](const HeadEviction& head) { return head.must_settle(); });
    for (auto& head : heads_) head.ask_gathers(promise_, work_);
    run_work();
    std::size_t first = 0;
    for (auto& head : heads_) first = head.take_gathers(std::span(work_.gathers).subspan(first)) + first;
    work_.clear();
    for (auto& head : heads_) head.rebuild(arena_, promise_, work_);
    run_work();
    work_.clear();
  }

 private:
  template <class Body>
  void each(const Body& body) {
    backend_.each(heads_.size(), [&](std::size_t i, std::size_t /*thread*/) { body(heads_[i]); });
  }

  // What is read must not depend on how far a thread has come with a block.
  [[nodiscard]] bool reads_rows() const {
    return std::any_of(layer_.selectors.begin(), layer_.selectors.end(),
                       [](const auto& s) { return s.scope() == KVLAB_SCOPE_PRESENT && s.reads() != 0; });
  }

  template <class Wants>
  void settle(const Wants& wants) {
    Encoder encoder(arena_, backend_, false);
    for (auto& head : heads_) {
      if (wants(head)) encoder.settle(head.head());
    }
    encoder.finish();
  }

  // Which slots stay. The budgets are of the tokens that were seen.
  void choose() {
    each([](HeadEviction& head) { head.begin(); });
    for (std::size_t step = 0; step < layer_.selectors.size(); ++step) {
      if (layer_.selectors[step].scope() == KVLAB_SCOPE_OBSERVED) continue;
      for (auto& head : heads_) head.ask_scores(step, backend_, work_);
      run_work();
      work_.clear();
      each([&](HeadEviction& head) { head.choose(of_budget(layer_.pipeline, step, head.seen())); });
    }
  }

  void run_work() {
    Work* work = &work_;
    backend_.run(std::span(&work, 1), arena_);
    backend_.synchronize();
  }

  const Layer& layer_;
  Arena& arena_;
  Promise& promise_;
  Backend& backend_;
  std::vector<HeadEviction> heads_;
  Work work_;
};

}  // namespace

bool is_above_budget(const Layer& layer, std::uint64_t kept, std::uint64_t seen) {
  std::uint64_t budget = seen;
  for (std::size_t step = 0; step < layer.selectors.size(); ++step) {
    if (layer.selectors[step].scope() != KVLAB_SCOPE_OBSERVED) budget = of_budget(layer.pipeline, step, budget);
  }
  return kept >= budget + layer.eviction_step;
}

// Blocks gathered at their bounds, raw rows laid out anew, positions and scores written anew.
std::uint64_t eviction_bytes(const HeadCall& call, std::uint64_t slots) {
  std::uint64_t bytes = Arena::padded(slots * sizeof(std::uint32_t));
  for (const auto& scores : call.head.scores) {
    if (scores.size() > 0) bytes += Arena::padded(slots * sizeof(float));
  }
  for (const std::uint32_t which : both_roles) {
    const Role& role = call.layer.role(which);
    std::uint64_t raw = 0;
    for (const auto& segment : call.head.of(which).segments) {
      if (segment.encoded) {
        bytes += bytes_of(role, BlockPlace{segment.rung, segment.tokens});
      } else {
        raw += segment.tokens;
        bytes += Arena::alignment;
      }
    }
    raw += slots - call.head.of(which).slots();
    bytes += Arena::padded(raw * role.row_bytes()) + 2 * bytes_of(role, ChunkPlace{0, 0, 256});
  }
  return bytes;
}

void evict(std::span<const HeadCall> calls, Arena& arena, Promise& promise, Backend& backend) {
  if (calls.empty() || calls.front().layer.selectors.empty()) return;
  Eviction eviction(calls.front().layer, arena, promise, backend);
  for (const auto& call : calls) eviction.add(call);
  eviction.run();
}

}  // namespace kvlab
