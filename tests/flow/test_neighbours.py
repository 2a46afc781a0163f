"""Whatever a cell's plugins do, its neighbours, the runner and what is finished are not hurt."""

import os
import signal
import subprocess
import time
from pathlib import Path

from kvlab import KVLAB, PLUGINS, folder, frame, main, run

NOISE = """kvlab: 1
name: neighbours
workloads:
  noise: {synthetic: gaussian, kv_heads: 2, query_heads: 2, tokens: 100, head_dim: 16}
measure: {speed: false}
"""


def start(*arguments, env=None):
    """A running kvlab, what it prints to stderr in a pipe."""
    return subprocess.Popen([KVLAB, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env={**os.environ, **(env or {})})


def test_no_command_loads_a_plugin_and_workers_do():
    with folder() as place:
        experiment, loads, out = Path(place) / "e.yaml", Path(place) / "loads", Path(place) / "out.h5"
        experiment.write_text(NOISE + "pipelines: {p: {select: [{method: loader, keep: 0.5}]}}\n")
        for command in (["list"], ["describe", "loader"], ["plan", experiment], ["run", experiment, "-o", out]):
            with start(*command, "--plugins", PLUGINS / "loader.so", env={"KVLAB_TEST_LOADS": str(loads)}) as process:
                _, errors = process.communicate()
                assert process.returncode == 0, errors
                loaders = loads.read_text().split()
                loads.unlink()
                # A child that describes it, and for a run the worker.
                assert len(loaders) == (2 if "run" in command else 1) and str(process.pid) not in loaders, command
        assert list(frame(out)["status"]) == ["ok"]


MISBEHAVE = NOISE + """pipelines:
  codec: {codec: {method: misbehave, how: {sweep: [HOWS]}}}
limits: {seconds: 600, memory: 512MiB}
"""


def rows_of(out, column="codec.how"):
    return {row[column]: row for _, row in frame(out).iterrows()}


def marked(mark):
    """Processes with `mark` in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (process / "environ").read_bytes():
                found.append(process.name)
        except OSError:  # it ended meanwhile
            pass
    return found


def misbehave(place, hows, *arguments, speed=False):
    """Runs them in this order; what it printed, and the result. Each timing takes .3 s, where there are any."""
    experiment, out = Path(place) / "e.yaml", Path(place) / "out.h5"
    text = MISBEHAVE.replace("HOWS", ", ".join(hows))
    experiment.write_text(text.replace("speed: false", "min_samples: 1000000, max_seconds: 0.3") if speed else text)
    done = run("run", experiment, "--plugins", PLUGINS, "-o", out, *arguments,
               env={"KVLAB_TEST_MARK": place, "KVLAB_TEST_CELLS": str(Path(place) / "out.cells")})
    assert out.exists(), done.stderr
    return done, out


def test_memory_is_of_all_that_a_worker_started():
    with folder() as place:
        done, out = misbehave(place, ["eat_in_child", "eat_in_file"])
        assert done.returncode == 1 and not marked(place)
        for how, row in rows_of(out).items():
            assert (row["status"], ", in misbehave's encode" in row["reason"]) == ("out_of_memory", True), (how, row["reason"])


def test_nothing_outlives_its_worker():
    with folder() as place:
        done, out = misbehave(place, ["leave_children"])
        assert done.returncode == 0 and not marked(place), done.stderr
        assert rows_of(out)["leave_children"]["status"] == "ok"


def test_nothing_outlives_a_runner_that_is_killed():
    with folder() as place:
        experiment = Path(place) / "e.yaml"
        experiment.write_text(MISBEHAVE.replace("HOWS", "eat_in_child").replace("512MiB", "64GiB"))
        with start("run", experiment, "--plugins", PLUGINS, "-o", Path(place) / "out.h5",
                   env={"KVLAB_TEST_MARK": place}) as process:
            while len(marked(place)) < 5:  # the runner, the keeper, the worker and its two
                assert process.poll() is None
                time.sleep(0.02)
            process.kill()
            while marked(place):
                time.sleep(0.02)


def test_a_hang_in_a_turn_costs_its_neighbour_nothing():
    with folder() as place:
        for limit in (2, 10, 50):  # what the neighbour needs for itself must fit, on whatever machine
            done, out = misbehave(place, ["hang", "fine"], "--jobs", 2, "--fresh", "--set", f"limits.seconds={limit}",
                                  speed=True)
            rows = rows_of(out)
            assert done.returncode == 1 and rows["hang"]["status"] == "timeout", done.stderr
            if rows["fine"]["status"] == "ok":
                return
        assert False, done.stderr


def test_a_run_whose_parent_ignores_its_children():
    with folder() as place:
        before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # inherited, across exec too
        try:
            out = Path(place) / "out.h5"
            experiment = Path(place) / "e.yaml"
            experiment.write_text(MISBEHAVE.replace("HOWS", "fine, exit"))
            subprocess.Popen([KVLAB, "run", experiment, "--plugins", PLUGINS, "-o", out], restore_signals=False,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).wait()
        finally:
            signal.signal(signal.SIGCHLD, before)
        rows = rows_of(out)
        assert rows["fine"]["status"] == "ok" and "exit code 3" in rows["exit"]["reason"], rows["exit"]["reason"]


def test_a_worker_that_harms_those_around_it_harms_its_own_row_only():
    with folder() as place:
        done, out = misbehave(place, ["kill_parent", "close_all", "fine"], "--jobs", 2)
        rows = rows_of(out)
        assert done.returncode == 1 and rows["fine"]["status"] == "ok", done.stderr
        assert rows["kill_parent"]["status"] == "crashed" and "SIGKILL" in rows["kill_parent"]["reason"]
        assert rows["close_all"]["status"] == "crashed" and "exit code 1" in rows["close_all"]["reason"]


def test_a_folder_of_cells_that_is_harmed_costs_no_row():
    with folder() as place:
        done, out = misbehave(place, ["fine", "remove_cells", "warn"])
        rows = rows_of(out)
        assert done.returncode == 0, done.stderr
        assert [rows[how]["status"] for how in ("fine", "remove_cells", "warn")] == ["ok", "ok", "ok"], done.stderr
        again, _ = misbehave(place, ["fine", "remove_cells", "warn"])
        assert again.returncode == 0 and "2 of 3 cells are done already" in again.stderr, again.stderr
    with folder() as place:
        done, out = misbehave(place, ["fine", "cells_to_file", "warn"])
        assert done.returncode == 1, done.stderr
        rows = rows_of(out)
        assert rows.pop("fine")["status"] == "ok"
        for row in rows.values():
            assert row["status"] == "failed" and "out.cells" in row["reason"], row["reason"]


main(globals())
