// The newest tokens stay: score = position. With sinks it is StreamingLLM (arXiv 2309.17453).
#include <kvlab/plugin.hpp>

namespace {

struct SlidingWindow : kvlab::Selector {
  static constexpr kvlab::Info info{
      .id = "sliding_window",
      .version = "1.0.0",
      .summary = "keeps the newest tokens; with sinks, StreamingLLM",
      .paper_title = "Efficient Streaming Language Models with Attention Sinks",
      .paper_arxiv = "2309.17453",
  };

  // The order of positions is the score. An f32 holds integers to 2^24, so the index does instead of the position:
  // positions ascend. Beyond 2^24 tokens neighbours tie, and ties would go to the earlier: the index is split there.
  void scores(const kvlab::HeadView& head, std::span<float> out) const {
    constexpr std::uint64_t exact = std::uint64_t{1} << 24;
    const std::uint64_t tokens = head.tokens();
    const std::uint64_t offset = tokens > exact ? tokens - exact : 0;  // the newest 2^24 are told apart
    for (std::uint64_t t = 0; t < tokens; ++t) {
      out[t] = t < offset ? static_cast<float>(t) - static_cast<float>(tokens) : static_cast<float>(t - offset);
    }
  }
};

}  // namespace

KVLAB_PLUGIN(SlidingWindow)
