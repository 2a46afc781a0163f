"""What is finished stays, is shown and is counted: plans, results so far, --only, --replace, files that cannot be read."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import h5py
from kvlab import KVLAB, PLUGINS, folder, frame, main, root, run, started

EXPERIMENT = """kvlab: 1
name: kept
workloads:
  noise: {synthetic: gaussian, kv_heads: 2, query_heads: 2, tokens: 100, head_dim: 16}
pipelines:
  raw: {}
  grid: {codec: {method: quantize, bits: {sweep: [8, 5, 4]}}}
measure: {speed: false}
"""
OUT = "out.h5"


class Place:
    """A folder with an experiment; runs of it."""

    def __init__(self, path, text=EXPERIMENT):
        self.path = Path(path)
        self.cells = self.path / "out.cells"
        self.write(text)

    def write(self, text, name="e.yaml"):
        (self.path / name).write_text(text)

    def run(self, *flags, name="e.yaml"):
        return run("run", name, "-o", OUT, "--plugins", PLUGINS, *flags, cwd=self.path)

    def show(self, *flags):
        return run("show", OUT, *flags, cwd=self.path)

    def frame(self):
        return frame(self.path / OUT)

    def ids(self, only="*"):
        return [c["id"] for c in json.loads(run("plan", self.path / "e.yaml", "--json", "--only", only).stdout)]

    def contents(self):
        return {p.name: p.read_bytes() for p in self.cells.glob("*.cell*")}


def test_only_filters_what_runs_and_not_the_result():
    with folder() as path:
        place = Place(path)
        first = place.run("--only", "raw/*")
        assert first.returncode == 0 and "3 of 4 cells of the plan are not measured yet" in first.stderr, first.stderr
        assert list(place.frame()["pipeline"]) == ["raw"] and root(place.path / OUT)["planned_cells"] == 4
        assert place.run().returncode == 0
        whole = place.frame()
        again = place.run("--only", "raw/*")
        assert again.returncode == 0 and "1 of 1 cells are done already" in again.stderr, again.stderr
        assert whole.equals(place.frame()) and len(whole) == 4


def test_an_edit_is_the_same_experiment_and_what_it_leaves_out_is_counted():
    with folder() as path:
        place = Place(path)
        assert place.run().returncode == 0
        result = place.run("--set", "pipelines.grid.codec.bits={sweep: [8, 3]}")
        assert result.returncode == 0 and "2 finished cells of the earlier result are not in this one" in result.stderr, result.stderr
        assert list(place.frame()["codec.bits"])[1:] == [8, 3] and len(place.contents()) == 5
        place.write(EXPERIMENT.replace("  raw: {}\n", ""))
        result = place.run()
        assert result.returncode == 0 and "2 finished cells of the earlier" in result.stderr, result.stderr
        assert "4 finished" not in place.run().stderr


def test_another_experiment_needs_replace():
    with folder() as path:
        place = Place(path)
        assert place.run().returncode == 0
        before, result_before = place.contents(), (place.path / OUT).read_bytes()
        place.write(EXPERIMENT.replace("8, 5, 4", "8, 6"), "other.yaml")
        refused = place.run(name="other.yaml")
        assert refused.returncode == 2 and len(refused.stderr.splitlines()) == 1, refused.stderr
        for part in ("out.h5: here is the result of another experiment", str(place.path / "e.yaml"), "--replace"):
            assert part in refused.stderr, refused.stderr
        assert before == place.contents() and result_before == (place.path / OUT).read_bytes()
        # A file that moved is the same one, and one that was never there before needs no flag.
        shutil.copy(place.path / "e.yaml", place.path / "moved.yaml")
        assert place.run(name="moved.yaml").returncode == 0
        replaced = place.run("--replace", name="other.yaml")
        assert replaced.returncode == 0 and "2 finished cells of the earlier" in replaced.stderr, replaced.stderr
        assert set(before) < set(place.contents()) and len(place.frame()) == 3


def test_a_result_without_a_plan_is_not_replaced_unasked():
    with folder() as path:
        place = Place(path)
        assert place.run().returncode == 0
        shutil.rmtree(place.cells)
        whole = (place.path / OUT).read_bytes()
        refused = place.run("--only", "raw/*")  # the same text, but rows would be lost
        assert refused.returncode == 2 and "(out.cells) are gone, so --only would leave" in refused.stderr, refused.stderr
        assert (place.path / OUT).read_bytes() == whole and not place.cells.exists()
        assert place.run().returncode == 0 and len(place.frame()) == 4
        shutil.rmtree(place.cells)
        place.write(EXPERIMENT.replace("8, 5, 4", "8, 6"), "other.yaml")
        refused = place.run(name="other.yaml")
        assert refused.returncode == 2 and "another text of this one; --replace" in refused.stderr, refused.stderr
        with h5py.File(place.path / OUT, "w") as file:
            file["mine"] = 1
        before = (place.path / OUT).read_bytes()
        refused = place.run()
        assert refused.returncode == 2 and "--replace" in refused.stderr, refused.stderr
        assert (place.path / OUT).read_bytes() == before and not place.cells.exists()
        assert place.run("--replace").returncode == 0


def test_show_says_what_is_done_while_it_runs_and_after_a_kill():
    with folder() as path:
        place = Place(path, EXPERIMENT)
        sets = ["--set", "pipelines.last={codec: {method: misbehave, how: hang}}"]
        for how in (signal.SIGINT, signal.SIGKILL):
            with subprocess.Popen([KVLAB, "run", "e.yaml", "-o", OUT, "--plugins", str(PLUGINS), *sets], cwd=path,
                                  stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                                  env={**os.environ, "KVLAB_TEST_MARK": f"{path}/{how}"}) as process:
                while len(place.contents()) < 4 or not started(f"{path}/{how}"):
                    time.sleep(0.02)
                during = place.show("--csv", "--columns", "pipeline,codec.bits")
                assert during.stdout == "pipeline,codec.bits\nraw,\ngrid,8\ngrid,5\ngrid,4\n", during.stdout
                assert "out.h5 is not written yet: 4 of 5 cells are done" in during.stderr, during.stderr
                assert f"pid {process.pid}" in during.stderr, during.stderr
                process.send_signal(how)
                said = process.communicate()[1]
            assert how != signal.SIGINT or "kvlab show out.h5" in said, said
            after = place.show("--csv", "--columns", "pipeline,codec.bits")
            assert after.stdout == during.stdout and "goes on from there" in after.stderr, after.stderr
        assert place.run().returncode == 0
        done = place.show("--csv", "--columns", "pipeline")
        assert done.stdout == "pipeline\nraw\ngrid\ngrid\ngrid\n" and not done.stderr, done.stderr


def test_the_plan_is_checked_like_a_cell():
    with folder() as path:
        place = Place(path)
        assert place.run().returncode == 0
        plan = place.cells / "plan"
        whole = plan.read_bytes()
        plan.write_bytes(whole[:-1])
        shown = place.show("--csv", "--columns", "pipeline")
        assert shown.returncode == 0 and "plan: it is damaged" in shown.stderr and shown.stdout.count("grid") == 3
        (place.path / OUT).rename(place.path / "moved.h5")
        assert place.show().returncode == 2 and "plan: it is damaged" in place.show().stderr
        again = place.run()
        assert again.returncode == 0 and "it is damaged" in again.stderr and "plan.aside" in again.stderr, again.stderr
        assert (place.cells / "plan.aside").read_bytes() == whole[:-1] and place.show().returncode == 0


def test_a_cell_that_cannot_be_read_is_said_and_left():
    with folder() as path:
        place = Place(path)
        assert place.run().returncode == 0
        (first, second, third, fourth) = [place.cells / f"{id}.cell" for id in place.ids()]
        first.unlink()
        first.mkdir()  # as unreadable to root as to others
        (first / "inside").write_text("kept")
        second.write_bytes(second.read_bytes()[:-1])
        third.unlink()
        (place.cells / "0123.h5").write_bytes(b"an old cell")
        stamp = fourth.stat().st_mtime_ns
        result = place.run()
        assert result.returncode == 1, result.stderr
        assert f"left as it is: out.cells/{first.name}: it is no file that can be read" in result.stderr, result.stderr
        assert "it is damaged" in result.stderr and f"it is now out.cells/{second.name}.damaged" in result.stderr
        assert "1 cells of an earlier kvlab (.h5)" in result.stderr and "[2/2]" in result.stderr, result.stderr
        assert list(place.frame()["status"]) == ["failed", "ok", "ok", "ok"]
        assert "--retry sets it aside" in place.frame()["reason"].iloc[0]
        assert (first / "inside").exists() and fourth.stat().st_mtime_ns == stamp
        assert (place.cells / f"{second.name}.damaged").exists() and (place.cells / "0123.h5").exists()
        fresh = place.run("--fresh", "--only", "raw/*")
        assert fresh.returncode == 0 and f"it is now out.cells/{first.name}.aside" in fresh.stderr, fresh.stderr
        assert (place.cells / f"{first.name}.aside" / "inside").exists()
        assert list(place.frame()["status"]) == ["ok"] * 4


def test_failures_are_said_with_their_reason_and_the_flag():
    with folder() as path:
        place = Place(path, EXPERIMENT.replace("{method: quantize, bits: {sweep: [8, 5, 4]}}",
                                               "{method: misbehave, how: {sweep: [throws, abort]}}").replace("  raw: {}\n", ""))
        for start in range(2):
            result = place.run()
            assert result.returncode == 1, result.stderr
            for part in ("2 of 2 cells failed; --retry runs them again", "1 x failed: misbehave: something inside went wrong",
                         "1 x crashed: "):
                assert part in result.stderr, result.stderr
            assert ("2 of 2 cells are done already, 2 of them failed (--retry" in result.stderr) == (start == 1), result.stderr
            assert "written: out.h5" in result.stderr


def test_a_cell_that_a_limit_ended_runs_again_under_a_larger_one():
    with folder() as path:
        place = Place(path, EXPERIMENT.replace("{method: quantize, bits: {sweep: [8, 5, 4]}}",
                                               "{method: misbehave, how: {sweep: [hang, eat_memory]}}"))
        def limits(seconds, memory):
            return ["--set", f"limits.seconds={seconds}", "--set", f"limits.memory={memory}"]
        for _ in range(2):
            assert place.run("--only", "raw/*", *limits(60, "1GiB")).returncode == 0
        assert place.run(*limits(2, "1GiB"), "--set", "pipelines.grid.codec.how=hang").returncode == 1
        cells = place.frame()
        assert cells["status"].iloc[1] == "timeout" and cells["limit_seconds"].iloc[1] == 2, cells["limit_seconds"]
        assert cells["limit_memory_bytes"].isna().all() and cells["limit_seconds"].isna().iloc[0]
        hang = ["--set", "pipelines.grid.codec.how=hang"]
        assert "[" not in place.run(*limits(2.1, "1GiB"), *hang).stderr
        assert "a limit ended run again" in place.run(*limits(2.2, "1GiB"), *hang).stderr
        eat = ["--set", "pipelines.grid.codec.how=eat_memory"]
        assert place.run(*limits(600, "200MiB"), *eat).returncode == 1
        assert place.frame()["status"].iloc[1] == "out_of_memory"
        assert place.frame()["limit_memory_bytes"].iloc[1] == 200 << 20
        assert "[" not in place.run(*limits(900, "210MiB"), *eat).stderr
        assert "a limit ended run again" in place.run(*limits(600, "221MiB"), *eat).stderr


def test_inputs_that_do_not_fit_are_a_row_at_once():
    with folder() as path:
        place = Place(path, EXPERIMENT.replace("tokens: 100", "tokens: {sweep: [100, 1073741824]}"))
        for _ in range(2):
            result = place.run("--only", "raw/*", "--set", "limits.memory=1GiB")
            assert result.returncode == 1, result.stderr
            cells = place.frame()
            # Of the others too it is known without running them.
            assert list(cells["status"]) == ["ok"] + 4 * ["out_of_memory"], cells["status"]
            assert "K, V and queries alone are 128.00 GiB; the limit is 1.00 GiB" in cells["reason"].iloc[1], cells["reason"].iloc[1]
            planned = run("plan", "e.yaml", "--set", "limits.memory=1GiB", cwd=path).stderr
            assert "are above limits.memory (1.00 GiB) in 4 of them" in planned, planned
            assert len(place.contents()) == 1 and "4 x out_of_memory: K, V and queries alone" in result.stderr
        # Such a row has no file, and is there whichever cells run.
        place.run("--only", "grid", "--set", "limits.memory=1GiB")
        assert list(place.frame()["status"]).count("out_of_memory") == 4


def test_an_instruction_set_is_part_of_a_measurement():
    with folder() as path:
        place = Place(path)
        assert place.run().returncode == 0 and len(set(place.frame()["isa"])) == 1
        one = run("run", "e.yaml", "-o", OUT, "--only", "raw", cwd=path, env={"KVLAB_ISA": "scalar"})
        assert one.returncode == 0 and "done already" not in one.stderr, one.stderr
        assert list(place.frame()["isa"]) == ["scalar"]


main(globals())
