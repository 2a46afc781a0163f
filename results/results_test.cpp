#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <random>

#include "core/base/error.hpp"
#include "results/atomic.hpp"
#include "results/finished.hpp"
#include "results/lock.hpp"
#include "results/places.hpp"
#include "results/store.hpp"
#include "tests/support/support.hpp"

namespace kvlab {
namespace {

CellRecord sample_cell(const std::string& id) {
  CellRecord record;
  record.cell = {{"id", id},
                 {"pipeline", std::string("int8")},
                 {"workload", std::string("w")},
                 {"backend", std::string("cpu")},
                 {"status", std::string("ok")},
                 {"parameters", std::string("{\"µ\":1}")},
                 {"bytes", 130.0}};
  for (const auto& spec : cell_columns()) {
    if (spec.type == ColumnType::integer) record.cell[spec.name] = std::int64_t{3};
  }
  record.layers = {{{"id", id}, {"layer", std::int64_t{2}}, {"key_error", 0.5}}};
  record.samples = {{"attend", {0.25, 0.5}}};
  return record;
}

TEST(Store, ACellReadsBackWhole) {
  h5::start();
  const test::Folder folder;
  const auto path = folder.path() / "a.cell";
  write_atomically(path, cell_to_bytes(sample_cell("a")));
  const CellRecord read = read_cell(path);
  EXPECT_EQ(std::get<std::string>(read.cell.at("parameters")), "{\"µ\":1}");
  EXPECT_EQ(std::get<double>(read.cell.at("bytes")), 130);
  EXPECT_TRUE(std::isnan(std::get<double>(read.cell.at("key_error"))));  // not measured: NaN, not 0
  EXPECT_EQ(std::get<std::string>(read.cell.at("reason")), "");
  ASSERT_EQ(read.layers.size(), 1U);
  EXPECT_EQ(std::get<double>(read.layers[0].at("key_error")), 0.5);
  ASSERT_EQ(read.samples.size(), 1U);
  EXPECT_EQ(read.samples[0].metric, "attend");
  EXPECT_EQ(read.samples[0].seconds, (std::vector<double>{0.25, 0.5}));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1);  // nothing left aside
}

TEST(Atomic, NothingIsLostWhereItCannotBeWritten) {
  const test::Folder folder;
  const auto path = folder.path() / "a.cell";
  write_atomically(path, "first");
  const rlimit none{4, RLIM_INFINITY};  // as if the disk were full after 4 bytes
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  const auto old = signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &none);
  std::string why;
  try {
    write_atomically(path, "second");
  } catch (const InputError&) {
    why = "refused";
  } catch (const Error& error) {
    why = error.what();
  }
  setrlimit(RLIMIT_FSIZE, &before);
  signal(SIGXFSZ, old);
  EXPECT_EQ(why, path.string() + ": cannot be written: File too large");
  EXPECT_EQ(bytes_of_file(path), "first");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1);
  EXPECT_THROW(write_atomically(folder.path() / "absent" / "x", ""), Error);
}

TEST(Atomic, WhatKilledWritersLeftIsRemoved) {
  const test::Folder folder;
  const auto held = folder.path() / "a.cell.tmp.0123456789abcdef";
  const auto left = folder.path() / "a.cell.tmp.00000000000000ff";
  const auto other = folder.path() / "b.cell.tmp.00000000000000ff";
  const auto mine = folder.path() / "a.cell.tmp.notes";
  for (const auto& path : {held, left, other, mine}) std::ofstream(path) << "x";
  const int fd = open(held.c_str(), O_WRONLY);
  ASSERT_EQ(flock(fd, LOCK_EX), 0);
  remove_left_behind(folder.path(), "a.cell");
  EXPECT_TRUE(std::filesystem::exists(held));  // its writer lives
  EXPECT_FALSE(std::filesystem::exists(left));
  EXPECT_TRUE(std::filesystem::exists(other));
  EXPECT_TRUE(std::filesystem::exists(mine));
  close(fd);
  remove_left_behind(folder.path(), "");
  EXPECT_FALSE(std::filesystem::exists(held));
  EXPECT_TRUE(std::filesystem::exists(mine));
  remove_left_behind(folder.path() / "absent", "");
}

TEST(Store, ARunHoldsItsCellsInOrder) {
  h5::start();
  const test::Folder folder;
  const auto path = folder.path() / "run.h5";
  RunInfo info;
  info.attributes = {{"peak_read_bandwidth", std::numeric_limits<double>::quiet_NaN()}};
  info.source = std::string(100'000, 'x');  // beyond what an attribute holds
  info.swept = {{"codec.bits", ColumnType::real, "1", "swept"}};
  std::vector<CellRecord> cells{sample_cell("b"), sample_cell("a")};
  cells[1].cell["codec.bits"] = 4.0;
  write_run(path, info, cells);
  const Table table = read_run(path);
  EXPECT_EQ(table.rows(), 2U);
  EXPECT_EQ(std::get<std::string>(table.row(0).at("id")), "b");
  EXPECT_TRUE(std::isnan(std::get<double>(table.row(0).at("codec.bits"))));
  EXPECT_EQ(std::get<double>(table.row(1).at("codec.bits")), 4);
  EXPECT_EQ(table.find("compress_seconds")->spec.unit, "s");
}

TEST(Store, RefusesWhatIsNoResult) {
  h5::start();
  const test::Folder folder;
  const auto message = [](auto&& read) {
    try {
      read();
    } catch (const InputError& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  const auto path = folder.path() / "x.h5";
  EXPECT_EQ(message([&] { read_run(path); }), path.string() + ": there is no such file");
  std::ofstream(path) << "text";
  EXPECT_EQ(message([&] { read_run(path); }), path.string() + ": is no HDF5 file, or is damaged");
  write_run(path, {}, {sample_cell("a")});
  std::filesystem::resize_file(path, std::filesystem::file_size(path) / 2);
  EXPECT_NE(message([&] { read_run(path); }), "accepted");
}

// What became of reading the bytes as the cell "a".
std::string outcome(const std::string& bytes) {
  try {
    cell_from_bytes(bytes, "a");
    return "kept";
  } catch (const DamagedError&) {
    return "damaged";
  } catch (const InputError& error) {
    return error.what();
  }
}

TEST(Cell, NoMutationIsKept) {
  const std::string whole = cell_to_bytes(sample_cell("a"));
  ASSERT_EQ(outcome(whole), "kept");
  EXPECT_LT(whole.size(), 8192U);
  std::mt19937 random(9);
  for (int i = 0; i < 20'000; ++i) {
    std::string bytes = whole;
    const std::size_t place = random() % bytes.size();
    switch (random() % 4) {
      case 0:
        bytes[place] = static_cast<char>(bytes[place] ^ (1 << random() % 8));
        break;
      case 1:
        bytes.resize(place);
        break;
      case 2:
        bytes.insert(place, 1 + random() % 16, static_cast<char>(random()));
        break;
      default:
        bytes.erase(place, 1 + random() % 16);
    }
    if (bytes == whole) continue;
    ASSERT_EQ(outcome(bytes), "damaged") << "mutation " << i;
  }
}

TEST(Cell, AnotherNameOrTypeIsDamageAndAnotherVersionIsNot) {
  const std::string whole = cell_to_bytes(sample_cell("b"));
  EXPECT_THROW(cell_from_bytes(whole, "a"), DamagedError);
  CellRecord wrong = sample_cell("a");
  wrong.cell["bytes"] = std::string("many");
  EXPECT_EQ(outcome(cell_to_bytes(wrong)), "damaged");
  EXPECT_EQ(outcome(seal({"kvplan", 1}, "")), "damaged");
  EXPECT_EQ(outcome(seal({"kvcell", 1}, "no CBOR")), "damaged");
  EXPECT_EQ(outcome(seal({"kvcell", 2}, "")), "its format's version is 2; this kvlab reads version 1");
}

PlanRecord sample_plan() {
  PlanRecord plan;
  plan.run = "1";
  plan.file = "/e.yaml";
  plan.source = "text";
  plan.assignments = {"seed=2"};
  plan.swept = {{"codec.bits", ColumnType::real, "1", "swept: codec.bits"}};
  for (const char* id : {"a", "b", "a", "c", "d"}) {
    Row row = sample_cell(id).cell;
    for (const char* name : {"status", "bytes"}) row.erase(name);
    row["pipeline"] = std::string("here");
    row["codec.bits"] = 4.0;
    plan.rows.push_back(row);
  }
  plan.rows[4] = unmeasured(plan.rows[4], Status::skipped, "no such backend").cell;
  return plan;
}

TEST(Plan, ReadsBackWholeOrNotAtAll) {
  const std::string bytes = plan_to_bytes(sample_plan());
  const PlanRecord read = plan_from_bytes(bytes);
  EXPECT_EQ(read.assignments, std::vector<std::string>{"seed=2"});
  EXPECT_EQ(read.swept[0].description, "swept: codec.bits");
  ASSERT_EQ(read.rows.size(), 5U);
  EXPECT_EQ(std::get<double>(read.rows[1].at("codec.bits")), 4);
  EXPECT_EQ(std::get<std::string>(read.rows[3].at("status")), "");
  for (std::size_t i = 0; i < bytes.size(); i += 7) {
    std::string wrong = bytes;
    wrong[i] = static_cast<char>(wrong[i] ^ 1);
    EXPECT_THROW(plan_from_bytes(wrong), DamagedError) << i;
  }
  EXPECT_THROW(plan_from_bytes(cell_to_bytes(sample_cell("a"))), DamagedError);
}

TEST(Plan, TheSameExperimentIsTheSamePathOrTheSameText) {
  const PlanRecord plan = sample_plan();
  PlanRecord other = plan;
  other.source = "edited";
  EXPECT_TRUE(same_experiment(plan, other));
  other.file = "/f.yaml";
  EXPECT_FALSE(same_experiment(plan, other));
  other.source = plan.source;
  EXPECT_TRUE(same_experiment(plan, other));
  PlanRecord pipe = plan;  // a pipe has no path of its own
  pipe.file = "";
  PlanRecord other_pipe = pipe;
  other_pipe.source = "edited";
  EXPECT_FALSE(same_experiment(pipe, other_pipe));
}

TEST(Plan, RowsAreThoseOfThePlanThatAreKnown) {
  CellRecord first = sample_cell("a");
  first.cell["log"] = std::string("said");
  const PlanRecord plan = plan_from_bytes(plan_to_bytes(sample_plan()));
  const auto rows = merge(plan, {{"a", first}, {"c", sample_cell("c")}, {"z", sample_cell("z")}});
  ASSERT_EQ(rows.size(), 4U);  // a, a again, c and the skipped one; b is not measured, and z is not planned
  for (const auto& row : rows) EXPECT_EQ(std::get<std::string>(row.cell.at("pipeline")), "here");
  EXPECT_EQ(std::get<double>(rows[0].cell.at("bytes")), 130);
  EXPECT_EQ(std::get<std::string>(rows[0].cell.at("log")), "said");
  EXPECT_EQ(std::get<std::string>(rows[0].cell.at("status")), "ok");
  EXPECT_EQ(rows[0].samples.size(), 1U);
  EXPECT_EQ(rows[1].samples.size(), 0U);  // measured once
  EXPECT_EQ(std::get<std::string>(rows[2].cell.at("id")), "c");
  EXPECT_EQ(std::get<std::string>(rows[3].cell.at("status")), "skipped");
}

TEST(Finished, TellsDamageFromWhatIsWholeAndCannotBeRead) {
  const test::Folder folder;
  const auto write = [&](const std::string& id, const std::string& bytes) {
    write_atomically(cell_file(folder.path(), id), bytes);
  };
  write("good", cell_to_bytes(sample_cell("good")));
  write("renamed", cell_to_bytes(sample_cell("good")));
  write("newer", seal({"kvcell", 2}, ""));
  std::filesystem::create_symlink("nowhere", cell_file(folder.path(), "link"));
  const Finished finished = read_cells(folder.path(), {"good", "renamed", "newer", "link", "absent"});
  EXPECT_EQ(finished.cells.size(), 1U);
  EXPECT_TRUE(finished.cells.contains("good"));
  EXPECT_EQ(finished.damaged.size(), 1U);
  EXPECT_TRUE(finished.damaged.contains("renamed"));
  EXPECT_EQ(finished.unreadable.size(), 2U);
  EXPECT_NE(finished.unreadable.at("newer").find("newer.cell: its format's version is 2"), std::string::npos);
  EXPECT_TRUE(finished.unreadable.contains("link"));
}

TEST(Places, TwoResultsNeverShareAFolderAndNothingIsOverwritten) {
  EXPECT_EQ(cells_folder("a/x.h5"), "a/x.cells");
  EXPECT_EQ(cells_folder("a/x.hdf5"), "a/x.hdf5.cells");
  EXPECT_EQ(cells_folder("a/x"), "a/x.cells");
  const test::Folder folder;
  for (const char* expected : {"f.old", "f.old.2", "f.old.3"}) {
    std::ofstream(folder.path() / "f") << expected;
    EXPECT_EQ(set_aside(folder.path() / "f", "old"), folder.path() / expected);
  }
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 3);
  std::filesystem::create_symlink("round", folder.path() / "round");
  EXPECT_THROW(followed(folder.path() / "round"), InputError);
}

TEST(Lock, HoldsAgainstOthersAndEnds) {
  const test::Folder folder;
  EXPECT_FALSE(writer_of(folder.path()));
  {
    const OutputLock lock(folder.path());
    EXPECT_EQ(lock.missing(), "");
    EXPECT_TRUE(writer_of(folder.path())->find("pid " + std::to_string(getpid())) != std::string::npos);
    EXPECT_THROW(OutputLock(folder.path()), InputError);
  }
  EXPECT_FALSE(writer_of(folder.path()));
  const OutputLock lock(folder.path());
}

}  // namespace
}  // namespace kvlab
