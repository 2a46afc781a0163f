// The experiment file, accepted and refused: each message as a user reads it.
#include <gtest/gtest.h>

#include <fstream>

#include "core/base/error.hpp"
#include "experiments/config/experiment.hpp"
#include "experiments/plan/plan.hpp"
#include "experiments/plan/sweep.hpp"
#include "tests/support/support.hpp"

namespace kvlab {
namespace {

constexpr const char* small = R"(kvlab: 1
name: t
workloads:
  w: {synthetic: gaussian, tokens: 64, head_dim: 8, kv_heads: 1, query_heads: 1}
pipelines:
  p: {codec: {method: quantize}}
)";

class ConfigTest : public testing::Test {
 protected:
  Plan plan(const std::string& text, const std::vector<std::string>& sets = {}, bool force = false) {
    const auto path = folder_.path() / "e.yaml";
    std::ofstream(path) << text;
    return make_plan(load_experiment(path.string(), sets), test::registry(), force, {});
  }

  // The refusal, with the file's own path left out.
  std::string refusal(const std::string& text, const std::vector<std::string>& sets = {}) {
    try {
      plan(text, sets);
    } catch (const InputError& error) {
      std::string message = error.what();
      const std::string path = (folder_.path() / "e.yaml").string();
      for (auto at = message.find(path); at != std::string::npos; at = message.find(path))
        message.replace(at, path.size(), "E");
      return message;
    }
    return "accepted";
  }

  // `small` with the pipelines' part replaced.
  static std::string with_pipelines(const std::string& lines) {
    const std::string text = small;
    return text.substr(0, text.find("pipelines:")) + "pipelines:\n" + lines;
  }
  static std::string with_workloads(const std::string& lines) {
    const std::string text = small;
    return text.substr(0, text.find("workloads:")) + "workloads:\n" + lines + text.substr(text.find("pipelines:"));
  }

  test::Folder folder_;
};

TEST_F(ConfigTest, RefusesTopLevelMistakes) {
  EXPECT_EQ(refusal(""), "E: it is empty");
  EXPECT_EQ(refusal("- a\n"), "E:1:1: the experiment is a list, not a map");
  EXPECT_EQ(refusal("a: [1\n").substr(0, 24), "E:2:1: this is not YAML:");
  EXPECT_NE(refusal("kvlab: 1\npipelines:\n\traw: {}\n").find("; it is indented with a tab"), std::string::npos);
  EXPECT_EQ(refusal(std::string(small) + "---\na: 1\n"), "E: it holds several documents; one is read");
  EXPECT_EQ(refusal(std::string(small) + "sed: 3\n"),
            "E:7:1: the experiment has no 'sed'; the nearest valid name is 'seed'");
  EXPECT_EQ(refusal(std::string(small) + "name: u\n"), "E:7:1: 'name' stands here a second time");
  EXPECT_EQ(refusal(std::string(small) + "<<: {a: 1}\n"), "E:7:1: merge keys (<<) are not read; write the keys out");
  EXPECT_EQ(refusal("kvlab: 2\nname: t\n"),
            "E:1:8: kvlab (the schema's version) is 2; the nearest valid value is 1 (valid: 1 .. 1)");
  EXPECT_EQ(refusal("kvlab: 1\nname: a b\n"), "E:2:7: the name 'a b' is not of the form [A-Za-z0-9_-]+");
  EXPECT_EQ(refusal("kvlab: 1\nname: t\n"), "E:1:1: the experiment needs 'workloads'");
  EXPECT_EQ(refusal(std::string(small) + "seed: -1\n"),
            "E:7:7: seed is -1; the nearest valid value is 0 (valid: 0 .. 4611686018427387903)");
  EXPECT_EQ(refusal(std::string(small) + "repeats: 0\n"),
            "E:7:10: repeats is 0; the nearest valid value is 1 (valid: 1 .. 100000)");
  EXPECT_EQ(refusal(std::string(small) + "backends: [gpu]\n"),
            "E:7:12: there is no backend 'gpu'; the nearest valid name is 'cpu'");
  EXPECT_EQ(refusal(std::string(small) + "backends: []\n"), "E:7:11: backends is an empty list; valid: cpu, cuda");
  EXPECT_EQ(refusal(std::string(small) + "measure: {min_samples: 2}\n"),
            "E:7:24: min_samples is 2; the nearest valid value is 3 (valid: 3 .. 1000000)");
  EXPECT_EQ(refusal(std::string(small) + "measure: {threads: 0}\n"),
            "E:7:20: threads is 0; the nearest valid value is 1 (valid: 1 .. 1024)");
  EXPECT_EQ(refusal(std::string(small) + "measure: {sped: true}\n"),
            "E:7:11: measure has no 'sped'; the nearest valid name is 'speed'");
  EXPECT_EQ(refusal(std::string(small) + "limits: {memory: 8Gib}\n"),
            "E:7:18: memory is '8Gib'; valid: a number with B, KiB, MiB, GiB, TiB, KB, MB, GB or TB, like 8GiB");
  EXPECT_EQ(refusal(std::string(small) + "limits: {seconds: 0}\n"), "E:7:19: seconds is 0; valid: above 0");
}

// One look at each key: with a look at all the others for each this took minutes.
TEST_F(ConfigTest, FindsOneDuplicateAmongManyKeys) {
  std::string text = small;
  for (int i = 0; i < 300'000; ++i) text += "key" + std::to_string(i) + ": 1\n";
  EXPECT_EQ(refusal(text + "key7: 1\n"), "E:300007:1: 'key7' stands here a second time");
}

TEST_F(ConfigTest, RefusesWrongPipelines) {
  EXPECT_EQ(refusal(with_pipelines("  p: {}\n  p: {}\n")), "E:7:3: 'p' stands here a second time");
  EXPECT_EQ(refusal(with_pipelines("  a.b: {}\n")),
            "E:6:3: a pipeline's label 'a.b' is not of the form [A-Za-z0-9_-]+");
  EXPECT_EQ(refusal(with_pipelines("  p:\n")), "E:6:3: pipeline 'p' is nothing, not a map");
  EXPECT_EQ(refusal(with_pipelines("  p: {codecs: {}}\n")),
            "E:6:7: pipeline 'p' has no 'codecs'; the nearest valid name is 'codec'");
  EXPECT_EQ(refusal(with_pipelines("  p: {codec: {method: quantise}}\n")),
            "E:6:23: there is no codec 'quantise'; the nearest valid name is 'quantize'");
  EXPECT_EQ(refusal(with_pipelines("  p: {codec: {method: random}}\n")),
            "E:6:23: 'random' is a selector, and a codec stands here; valid: low_rank, quantize");
  EXPECT_EQ(refusal(with_pipelines("  p: {codec: {bits: 4}}\n")),
            "E:6:14: the codec of pipeline 'p' needs 'method', or 'keys' and 'values'");
  EXPECT_EQ(refusal(with_pipelines("  p: {codec: {method: quantize, bit: 4}}\n")),
            "E:6:33: the codec of pipeline 'p' has no 'bit'; the nearest valid name is 'bits' (kvlab describe quantize "
            "lists the "
            "parameters)");
  EXPECT_EQ(refusal(with_pipelines("  p: {codec: {method: quantize, bits: 7}}\n")),
            "E:6:39: bits is 7; the nearest valid value is 6 (valid: 2, 3, 4, 5, 6, 8)");
  EXPECT_EQ(refusal(with_pipelines("  p: {codec: {method: quantize, bits: [4]}}\n")),
            "E:6:39: bits is a list, not a single value; a cell for each of several is {sweep: [8, ...]}");
  EXPECT_EQ(refusal(with_pipelines("  p: {codec: {method: quantize, keys: {method: quantize}}}\n")),
            "E:6:15: 'method' stands beside 'keys' or 'values'; give one or the others");
  EXPECT_EQ(refusal(with_pipelines("  p: {select: [{method: random}]}\n")),
            "E:6:16: a selector of pipeline 'p' needs a budget: 'tokens' or 'keep', and not both");
  EXPECT_EQ(refusal(with_pipelines("  p: {select: [{method: random, keep: 0.5, tokens: 3}]}\n")),
            "E:6:16: a selector of pipeline 'p' needs a budget: 'tokens' or 'keep', and not both");
  EXPECT_EQ(refusal(with_pipelines("  p: {select: [{method: random, keep: 0}]}\n")),
            "E:6:39: keep is 0; valid: above 0 and at most 1, the share of tokens that stay");
  EXPECT_EQ(refusal(with_pipelines("  p: {cache: {sinks: 4, tail: 8}, select: [{method: random, tokens: 11}]}\n")),
            "E:6:43: pipeline 'p' with workload 'w': a budget of 11 of 64 tokens is below sinks + tail = 12");
}

TEST_F(ConfigTest, RefusesWrongLadders) {
  const auto adaptive = [&](const std::string& text) {
    return refusal(with_pipelines("  p: {adaptive: " + text + "}\n"));
  };
  const std::string q = "codec: {method: quantize}";
  EXPECT_EQ(adaptive("[]"), "E:6:17: the adaptive of pipeline 'p' has 0 codecs; valid: 1 .. 16");
  EXPECT_EQ(adaptive("[{" + q + "}]"), "E:6:18: an entry of the adaptive of pipeline 'p' needs 'above_tokens'");
  EXPECT_EQ(adaptive("[{above_tokens: 5, " + q + "}]"), "E:6:33: above_tokens is 5; valid: 0, in the first entry");
  EXPECT_EQ(adaptive("[{above_tokens: 0, " + q + "}, {above_tokens: 0, " + q + "}]"),
            "E:6:79: above_tokens is 0; valid: more than the entry before, 0");
  EXPECT_EQ(adaptive("[{above_tokens: 0}]"), "E:6:18: an entry of the adaptive of pipeline 'p' needs 'codec'");
  EXPECT_EQ(adaptive("[{above_tokens: 0, codec: {method: quantise}}]"),
            "E:6:52: there is no codec 'quantise'; the nearest valid name is 'quantize'");
  EXPECT_EQ(adaptive("[{above_tokens: 0, " + q + ", recoded: true}]"),
            "E:6:63: an entry of the adaptive of pipeline 'p' has no 'recoded'; the nearest valid name is 'recode'");
  EXPECT_EQ(adaptive("[{above_tokens: 0, " + q + "}, {above_tokens: 9, codec: {keys: {method: quantize}}}]"),
            "E:6:64: the adaptive of pipeline 'p': a role that has a codec in one place has one in all");
  EXPECT_EQ(adaptive("[{above_tokens: 0, " + q + ", recode: true}]"),
            "E:6:71: recode is true; valid: false, the first entry has no blocks before it");
  EXPECT_EQ(adaptive("{bytes_per_sequence: 8Mib, ladder: [{method: quantize}]}"),
            "E:6:38: bytes_per_sequence is '8Mib'; valid: a number with B, KiB, MiB, GiB, TiB, KB, MB, GB or TB, like "
            "8GiB");
  EXPECT_EQ(
      adaptive("{bytes_per_sequence: 0, ladder: [{method: quantize}]}"),
      "E:6:38: bytes_per_sequence is '0'; valid: a number with B, KiB, MiB, GiB, TiB, KB, MB, GB or TB, like 8GiB");
  EXPECT_EQ(adaptive("{ladder: [{method: quantize}]}"),
            "E:6:17: the adaptive of pipeline 'p' needs 'bytes_per_sequence'");
  EXPECT_EQ(refusal(with_pipelines("  p: {" + q + ", adaptive: [{above_tokens: 0, " + q + "}]}\n")),
            "E:6:34: 'adaptive' stands beside 'codec'; give one of them: its first codec is the one to begin with");
  EXPECT_EQ(refusal(with_pipelines("  p: {cache: {async: maybe}}\n")), "E:6:22: async is 'maybe'; valid: true, false");
}

TEST_F(ConfigTest, ALadderIsSweptAndResolved) {
  const Plan grid = plan(with_pipelines(
      "  p: {adaptive: [{above_tokens: 0, codec: {method: quantize}}, {above_tokens: {sweep: [100, 200]}, codec: "
      "{method: quantize, bits: 4}, recode: true}]}\n  q: {adaptive: {bytes_per_sequence: 8KiB, ladder: [{method: "
      "quantize}, {codec: {method: quantize, bits: 4}}]}}\n"));
  ASSERT_EQ(grid.cells.size(), 3U);
  EXPECT_EQ(grid.cells[1].parameters["adaptive"][1]["above_tokens"], 200);
  EXPECT_EQ(grid.cells[1].parameters["adaptive"][1]["recode"], true);
  EXPECT_EQ(grid.cells[1].parameters["adaptive"][0]["codec"]["bits"], 8);
  EXPECT_EQ(grid.swept, (std::vector<std::string>{"adaptive.1.above_tokens"}));
  EXPECT_EQ(grid.cells[2].parameters["adaptive"]["bytes_per_sequence"], 8192);
  EXPECT_EQ(grid.cells[2].parameters["adaptive"]["ladder"][1]["codec"]["bits"], 4);
  EXPECT_NE(grid.cells[0].id, grid.cells[1].id);
}

TEST_F(ConfigTest, RefusesWrongWorkloads) {
  EXPECT_EQ(refusal(with_workloads("  w: {tokens: 3}\n")),
            "E:4:6: workload 'w' needs 'trace' or 'synthetic', and not both");
  EXPECT_EQ(refusal(with_workloads("  w: {synthetic: gausian}\n")),
            "E:4:18: there is no workload generator 'gausian'; the nearest valid name is 'gaussian'");
  EXPECT_EQ(refusal(with_workloads("  w: {synthetic: gaussian, head_dim: 513}\n")),
            "E:4:38: head_dim is 513; the nearest valid value is 512 (valid: 1 .. 512)");
  EXPECT_EQ(refusal(with_workloads("  w: {synthetic: gaussian, kv_heads: 3, query_heads: 4}\n")),
            "E:4:54: query_heads 4 is not a multiple of kv_heads 3");
  EXPECT_EQ(refusal(with_workloads("  w: {synthetic: gaussian, tokens: 5, prefill: 6}\n")),
            "E:4:48: prefill is 6; the nearest valid value is 5 (valid: 1 .. 5)");
  EXPECT_EQ(refusal(with_workloads("  w: {synthetic: needle, decay: 1}\n")).substr(0, 37),
            "E:4:26: workload 'w' has no 'decay'; ");
  EXPECT_NE(refusal(with_workloads("  w: {trace: nowhere.h5}\n")).find("there is no such file"), std::string::npos);
}

TEST_F(ConfigTest, SetChangesAnyValueAndSaysItsPlace) {
  EXPECT_EQ(plan(small, {"pipelines.p.codec.bits=4"}).cells[0].parameters["codec"]["bits"], 4);
  EXPECT_EQ(plan(small, {"pipelines.p.cache.sinks=4"}).cells[0].parameters["cache"]["sinks"], 4);
  EXPECT_EQ(plan(small, {"pipelines.q={}"}).cells.size(), 2U);
  EXPECT_EQ(plan(small, {"seed=9", "repeats=2"}).cells[1].seed, 10);
  EXPECT_EQ(plan(small, {"pipelines.p.codec.bits={sweep: [8, 4]}"}).cells.size(), 2U);
  EXPECT_EQ(refusal(small, {"pipelines.p.codec.bits=7"}),
            "--set pipelines.p.codec.bits=7: bits is 7; the nearest valid value is 6 (valid: 2, 3, 4, 5, 6, 8)");
  EXPECT_EQ(refusal(small, {"pipelines.r.codec.bits=4"}),
            "--set pipelines.r.codec.bits=4: there is no 'r'; the nearest valid name is 'p'; pipelines.r={...} adds a "
            "whole one");
  EXPECT_EQ(refusal(small, {"pipelins.p.codec.bits=4"}),
            "--set pipelins.p.codec.bits=4: there is no 'pipelins'; the nearest valid name is 'pipelines'");
  EXPECT_EQ(refusal(small, {"pipelines"}), "--set pipelines: it is not of the form path=value");
  EXPECT_EQ(refusal(small, {"sede=1"}), "--set sede=1: the experiment has no 'sede'; the nearest valid name is 'seed'");
  EXPECT_EQ(refusal(small, {"seed=[1"}).substr(0, 36), "--set seed=[1: this is not YAML: end");
}

TEST_F(ConfigTest, SweepsAndZipsMultiplyOut) {
  const Plan grid =
      plan(with_pipelines("  g: {codec: {method: quantize, scale_dtype: {sweep: [f16, f32]}}, zip: {codec.bits: [8, "
                          "4], codec.group: [64, 32]}}\n"));
  ASSERT_EQ(grid.cells.size(), 4U);
  EXPECT_EQ(grid.cells[1].parameters["codec"]["bits"], 8);
  EXPECT_EQ(grid.cells[1].parameters["codec"]["scale_dtype"], "f32");
  EXPECT_EQ(grid.cells[2].parameters["codec"]["bits"], 4);
  EXPECT_EQ(grid.cells[2].parameters["codec"]["group"], 32);
  const auto columns = swept_columns(grid);
  ASSERT_EQ(columns.size(), 3U);
  EXPECT_EQ(columns[0].spec.name, "codec.bits");
  EXPECT_EQ(columns[2].spec.type, ColumnType::text);

  const Plan tiny = plan(with_workloads(
      "  w: {synthetic: spectrum, tokens: 8, head_dim: 4, decay: {sweep: {from: 1e-13, to: 1e-11, times: 10}}}\n"));
  ASSERT_EQ(tiny.cells.size(), 3U);
  EXPECT_EQ(tiny.cells[2].parameters["workload"]["decay"], 1e-11);

  const Plan range =
      plan(with_workloads("  w: {synthetic: gaussian, tokens: {sweep: {from: 32, to: 256, times: 2}}}\n"));
  ASSERT_EQ(range.cells.size(), 4U);
  EXPECT_EQ(range.cells[3].parameters["workload"]["tokens"], 256);
  EXPECT_EQ(range.swept, std::vector<std::string>{"workload.tokens"});
  EXPECT_EQ(plan(with_pipelines("  p: {select: [{method: random, keep: {sweep: {from: 0.1, to: 0.3, step: 0.1}}}]}\n"))
                .cells.size(),
            3U);
}

TEST_F(ConfigTest, RefusesWrongSweeps) {
  const auto bits = [&](const std::string& value) {
    return refusal(with_pipelines("  p: {codec: {method: quantize, bits: " + value + "}}\n"));
  };
  EXPECT_EQ(bits("{sweep: []}"), "E:6:47: a sweep has no values, so the grid has no cells");
  EXPECT_EQ(refusal(with_pipelines("  p: {sweep: [{}, {}]}\n")),
            "E:6:6: pipeline 'p' is a sweep as a whole; sweep the values in it, or give each a label");
  EXPECT_EQ(bits("{sweep: 4}"), "E:6:47: a sweep is a value, not a list");
  EXPECT_EQ(bits("{sweep: [4], also: 1}"), "E:6:52: a sweep has no 'also'; valid: sweep");
  EXPECT_EQ(bits("{sweep: [8, 7]}"), "E:6:51: bits is 7; the nearest valid value is 6 (valid: 2, 3, 4, 5, 6, 8)");
  EXPECT_EQ(bits("{sweep: {from: 2, to: 8}}"), "E:6:47: a sweep's range needs 'times' or 'step', and not both");
  EXPECT_EQ(bits("{sweep: {from: 8, to: 2, step: 1}}"), "E:6:61: to is below from");
  EXPECT_EQ(bits("{sweep: {from: 1, to: 2, step: 0}}"), "E:6:70: step is 0; valid: above 0");
  EXPECT_EQ(refusal(with_pipelines("  p: {codec: {method: quantize}, zip: {codec.bits: [8, 4], codec.group: [1]}}\n")),
            "E:6:73: zip's codec.group has 1 values, the first list has 2");
  EXPECT_EQ(refusal(with_pipelines("  p: {codec: {method: quantize, bits: 8}, zip: {codec.bits: [8, 4]}}\n")),
            "E:6:61: 'codec.bits' has a value besides zip");
  EXPECT_EQ(refusal(with_pipelines("  p: {zip: {codec.bits: [8, 4]}}\n")),
            "E:6:13: zip: there is no map 'codec' here; there are none");
  EXPECT_EQ(refusal(with_pipelines("  p: {codec: {method: quantize}, zip: {codex.bits: [8, 4]}}\n")),
            "E:6:40: zip: there is no map 'codex' here; the nearest valid name is 'codec'");
  // A parameter that is not there is told at the path that would make it.
  EXPECT_EQ(refusal(with_pipelines("  p: {codec: {method: quantize}, zip: {codec.bitz: [8, 4]}}\n")).substr(0, 8),
            "E:6:40: ");
  EXPECT_EQ(refusal(std::string(small) + "repeats: 100000\nbackends: [cpu, cuda]\n"),
            "E:1:1: the grid has 200000 cells, more than 100000; --force runs them all the same");
}

TEST_F(ConfigTest, ExcludeMatchesEffectiveValues) {
  const std::string grid = with_pipelines(
      "  g: {codec: {method: quantize, bits: {sweep: [8, 4, 2]}}}\n  h: {codec: {method: quantize, symmetric: "
      "false}}\n");
  EXPECT_EQ(plan(grid).cells.size(), 4U);
  EXPECT_EQ(plan(grid + "exclude: [{pipeline: g, codec.bits: 2}]\n").cells.size(), 3U);
  EXPECT_EQ(plan(grid + "exclude: [{codec.bits: 8}]\n").cells.size(), 2U);  // h's default too
  EXPECT_EQ(plan(grid + "exclude: [{codec.bits: [8, 4]}]\n").cells.size(), 1U);
  EXPECT_EQ(plan(grid + "exclude: [{codec.symmetric: true, workload.tokens: 64.0}]\n").cells.size(), 1U);
  EXPECT_EQ(refusal(grid + "exclude: [{codec.bit: 8}]\n"),
            "E:8:12: exclude: no cell has 'codec.bit'; the nearest valid name is 'codec.bits'");
  EXPECT_EQ(refusal(grid + "exclude: [{backend: cpu}]\n"), "E:1:1: the grid has no cells: exclude drops them all");
  EXPECT_EQ(refusal(grid + "exclude: [{}]\n"), "E:8:11: a rule of exclude is empty");
}

TEST_F(ConfigTest, IdsNameWhatDecidesTheNumbers) {
  const auto id = [&](const std::string& text, const std::vector<std::string>& sets = {}) {
    return plan(text, sets).cells[0].id;
  };
  const std::string base = id(small);
  EXPECT_EQ(base.size(), 16U);
  EXPECT_EQ(id(small), base);
  EXPECT_EQ(id(small, {"pipelines.p.codec.bits=8"}), base);                         // a default written out
  EXPECT_EQ(id(with_pipelines("  renamed: {codec: {method: quantize}}\n")), base);  // labels do not matter
  EXPECT_EQ(id(small, {"limits={seconds: 5}"}), base);
  EXPECT_NE(id(small, {"pipelines.p.codec.bits=4"}), base);
  EXPECT_NE(id(small, {"seed=2"}), base);
  EXPECT_NE(id(small, {"workloads.w.tokens=65"}), base);
  EXPECT_NE(id(small, {"measure={speed: false}"}), base);
  EXPECT_NE(id(small, {"measure={threads: 1}"}), base);
}

TEST_F(ConfigTest, AliasesMayNotGrowWithoutBound) {
  std::string bomb = "kvlab: 1\nname: t\na0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 8; ++i) {
    std::string line = "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [";
    for (int j = 0; j < 10; ++j) line += (j > 0 ? ", *a" : "*a") + std::to_string(i - 1);
    bomb += line + "]\n";
  }
  EXPECT_NE(refusal(bomb).find("grows beyond a million values"), std::string::npos);
  EXPECT_NE(refusal("a: &a [*a]\n").find("more than 64 levels of nesting"), std::string::npos);
}

}  // namespace
}  // namespace kvlab
