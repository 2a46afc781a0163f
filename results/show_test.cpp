// What is printed of a result.
#include "results/show.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <sstream>

#include "core/base/error.hpp"
#include "results/failures.hpp"

namespace kvlab {
namespace {

TEST(Failures, AreGroupedByReason) {
  Table table;
  table.columns = {{{"status", ColumnType::text, "", ""}, {}}, {{"reason", ColumnType::text, "", ""}, {}}};
  const auto add = [&](const char* status, const char* reason) {
    table.columns[0].values.emplace_back(std::string(status));
    table.columns[1].values.emplace_back(std::string(reason));
  };
  add("ok", "");
  add("unsupported", "not here");
  EXPECT_EQ(failures_of(table), "");
  add("failed", "broken");
  add("timeout", "longer than 3 s");
  add("timeout", "longer than 4 s");
  EXPECT_EQ(failures_of(table),
            "3 of 5 cells failed; --retry runs them again\n  2 x timeout: longer than 3 s (of the first; the others' "
            "numbers differ)\n  1 x failed: broken\n");
}

TEST(Show, SortsChoosesAndQuotes) {
  Table table;
  table.columns = {{{"pipeline", ColumnType::text, "", ""}, {std::string("b,\"c\""), std::string("a")}},
                   {{"bytes", ColumnType::real, "B", ""}, {1.5, std::numeric_limits<double>::quiet_NaN()}},
                   {{"status", ColumnType::text, "", ""}, {std::string("ok"), std::string("failed")}}};
  std::ostringstream csv;
  show(table, {"pipeline", {}, true}, csv);
  EXPECT_EQ(csv.str(), "pipeline,bytes,status\na,,failed\n\"b,\"\"c\"\"\",1.5,ok\n");
  table.columns[1].spec.name = "a,b";
  const std::string endless(1U << 20U, 'x');
  table.columns[2].values[0] = endless;
  std::ostringstream odd;
  show(table, {"", {"a,b", "status"}, true}, odd);
  EXPECT_EQ(odd.str(), "\"a,b\",status\n1.5," + endless + "\n,failed\n");
  std::ostringstream narrow;
  show(table, {"", {"status", "pipeline"}, false}, narrow);
  EXPECT_LT(narrow.str().size(), 7000U);
  table.columns[1].spec.name = "bytes";
  std::ostringstream people;
  show(table, {"-bytes", {"bytes", "pipeline"}, false}, people);
  EXPECT_EQ(people.str(), "bytes  pipeline\n  1.5  b,\"c\"\n    -  a\n");
  EXPECT_THROW(show(table, {"byte", {}, false}, people), InputError);
  EXPECT_THROW(show(table, {"", {"byte"}, false}, people), InputError);
}

std::string shown(const Table& table, const ShowOptions& options = {}) {
  std::ostringstream out;
  show(table, options, out);
  return out.str();
}

Column texts(const std::string& name, std::vector<Value> values) {
  return {{name, ColumnType::text, "", ""}, std::move(values)};
}

TEST(Show, RepeatsAreOneRowWithMeanAndSpread) {
  const std::string a = "a";
  const std::string b = "b";
  const std::string ok = "ok";
  const std::string cpu = "cpu";
  const std::string noise = "noise";
  const double nan = std::numeric_limits<double>::quiet_NaN();
  Table table;
  table.columns = {
      texts("pipeline", {a, b, a, b, a}),
      texts("workload", {noise, noise, noise, noise, noise}),
      texts("backend", {cpu, cpu, cpu, cpu, cpu}),
      texts("parameters", {a, b, a, b, a}),
      {{"repeat", ColumnType::integer, "1", ""},
       {std::int64_t{0}, std::int64_t{0}, std::int64_t{1}, std::int64_t{1}, std::int64_t{2}}},
      texts("status", {ok, ok, ok, ok, std::string("timeout")}),
      texts("reason", {std::string(), std::string(), std::string(), std::string(), std::string("too slow")}),
      {{"output_error", ColumnType::real, "1", ""}, {1.0, 3.0, 2.0, 3.0, nan}}};
  EXPECT_EQ(shown(table),
            "pipeline  status     output_error  reason\n"
            "a         2 of 3 ok   1.5 ±0.7071  too slow\n"
            "b         ok                    3\n");
  EXPECT_EQ(shown(table, {.sort = "-output_error", .columns = {"pipeline"}}), "pipeline\nb\na\n");
  EXPECT_EQ(shown(table, {.sort = "", .columns = {"repeat"}}), "repeat\n     0\n     0\n     1\n     1\n     2\n");
  const std::string rows = shown(table, {.sort = "", .columns = {}, .csv = false, .rows = true});
  EXPECT_EQ(std::count(rows.begin(), rows.end(), '\n'), 6);
  EXPECT_NE(rows.find("repeat"), std::string::npos);
  const std::string csv = shown(table, {.sort = "", .columns = {}, .csv = true});
  EXPECT_EQ(std::count(csv.begin(), csv.end(), '\n'), 6);
}

// Where all fail alike the table still says so, and shows no column in which nothing was measured.
TEST(Show, AFailureIsToldAlsoWhereAllFail) {
  const std::string failed = "failed";
  const std::string why = "misjudge: the score of token 0 is NaN";
  Table table;
  table.columns = {
      texts("pipeline", {std::string("a"), std::string("b")}),
      texts("status", {failed, failed}),
      texts("reason", {why, why}),
      {{"output_error", ColumnType::real, "1", ""}, std::vector<Value>(2, std::numeric_limits<double>::quiet_NaN())}};
  EXPECT_EQ(shown(table), "pipeline  status  reason\na         failed  " + why + "\nb         failed  " + why + "\n");
}

}  // namespace
}  // namespace kvlab
