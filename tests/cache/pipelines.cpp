#include "tests/cache/pipelines.hpp"

#include <algorithm>
#include <filesystem>

#include "tests/support/support.hpp"

namespace kvlab::test {

bool recodes(const Pipeline& pipeline) {
  return pipeline.bytes_per_sequence > 0 ||
         std::any_of(pipeline.ladder.begin(), pipeline.ladder.end(), [](const Rung& rung) { return rung.recode; });
}

Pipeline kivi(std::uint64_t sinks, std::uint64_t tail, const char* bits) {
  Pipeline pipeline;
  pipeline.sinks = sinks;
  pipeline.tail = tail;
  pipeline.keys =
      spec("quantize", {{"bits", bits}, {"symmetric", "false"}, {"scales", "per_channel"}, {"group", "32"}});
  pipeline.values = spec("quantize", {{"bits", bits}, {"symmetric", "false"}, {"group", "32"}});
  return pipeline;
}

Pipeline one_role_each() {
  Pipeline pipeline;
  pipeline.keys = spec("quantize", {{"bits", "5"}});
  pipeline.values = spec("quantize", {{"bits", "4"}, {"scales", "per_channel"}, {"group", "64"}});
  return pipeline;
}

Rung rung(std::uint64_t above_tokens, const Pipeline& codecs, bool recode) {
  return {above_tokens, codecs.keys, codecs.values, recode};
}

MethodSpec of_tests(const std::string& id) {
  static const Registry plugins({std::filesystem::path(KVLAB_BINARY_DIR) / "tests" / "plugins"});
  return {plugins.find(id), {}};
}

std::vector<Case> pipelines() {
  std::vector<Case> all{{"raw", {}}, {"kivi", kivi(0, 0)}, {"kivi, sinks and tail", kivi(4, 50)}};
  Pipeline one_role;
  one_role.sinks = 3;
  one_role.values = spec("quantize");
  all.push_back({"raw keys", one_role});
  Pipeline rank;
  rank.tail = 7;
  rank.keys = spec("low_rank", {{"rank", "14"}, {"block", "300"}, {"factor_dtype", "f32"}});
  rank.values = spec("quantize", {{"scales", "per_channel"}});
  all.push_back({"low_rank", rank, false});
  Pipeline window = kivi(4, 20);
  window.select = {{spec("sliding_window"), {100, 1}}};
  all.push_back({"window", window});
  Pipeline scored = rank;  // blocks of 300 and of 128
  scored.sinks = 2;
  scored.select = {{spec("magnitude"), {std::nullopt, 0.5}}};
  all.push_back({"magnitude, cut apart", scored, false});
  Pipeline hybrid = kivi(1, 30);
  hybrid.select = {{spec("sliding_window"), {300, 1}}, {spec("magnitude"), {std::nullopt, 0.6}}};
  all.push_back({"hybrid", hybrid});
  Pipeline raw_window;
  raw_window.select = {{spec("magnitude"), {50, 1}}};
  all.push_back({"raw, magnitude", raw_window});
  Pipeline one = one_role;
  one.select = {{spec("random"), {200, 1}}};
  all.push_back({"raw keys, random", one});
  Pipeline observed = window;  // the observed queries' choice is the prefill's alone, the window's goes on
  observed.select = {{spec("attention_score"), {std::nullopt, 0.5}}, {spec("sliding_window"), {150, 1}}};
  all.push_back({"attention score, window", observed});
  Pipeline present = kivi(2, 30);
  present.select = {{of_tests("keydiff"), {std::nullopt, 0.6}}};
  all.push_back({"keydiff", present});
  Pipeline rotated;
  rotated.sinks = 2;
  rotated.tail = 9;
  rotated.keys = rotated.values = of_tests("rotated");
  all.push_back({"rotated", rotated});
  rotated.select = window.select;
  all.push_back({"rotated window", rotated});
  Pipeline ladder = kivi(4, 50);
  ladder.ladder = {rung(0, kivi(0, 0, "8")), rung(300, kivi(0, 0, "4")), rung(801, kivi(0, 0, "6"))};
  all.push_back({"ladder", ladder});
  Pipeline recoded = rank;  // from blocks of 32 and 128 to 300 and 128, and back
  recoded.ladder = {rung(0, kivi(0, 0)), rung(200, rank, true), rung(330, one_role_each()),
                    rung(700, kivi(0, 0), true)};
  all.push_back({"recoded ladder", recoded});
  Pipeline by_bytes = kivi(4, 40);
  by_bytes.ladder = {rung(0, kivi(0, 0, "8")), rung(0, rank), rung(0, kivi(0, 0, "3"))};
  by_bytes.bytes_per_sequence = 60000;
  all.push_back({"recoded by bytes", by_bytes});
  Pipeline narrower;  // no tail: a chunk that is open when its block is cut
  narrower.ladder = {rung(0, one_role), rung(170, one_role_each())};
  narrower.ladder[0].keys = spec("quantize");
  narrower.ladder[1].keys = kivi(0, 0).keys;
  all.push_back({"ladder without a tail", narrower});
  Pipeline few = window;
  few.ladder = by_bytes.ladder;
  few.bytes_per_sequence = 25000;
  few.select = {{spec("magnitude"), {std::nullopt, 0.6}}};
  all.push_back({"recoded by bytes, magnitude", few});
  Pipeline windowed = window;
  windowed.ladder = {rung(0, kivi(0, 0, "8")), rung(250, one_role_each(), true), rung(600, kivi(0, 0), true)};
  all.push_back({"recoded window", windowed});
  Pipeline half = scored;
  half.ladder = recoded.ladder;
  all.push_back({"recoded magnitude", half});
  for (auto& [name, pipeline, is_cut_alike] : all) {
    if (!pipeline.ladder.empty()) pipeline.keys = pipeline.values = std::nullopt;
  }
  return all;
}

}  // namespace kvlab::test
