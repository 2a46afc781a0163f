"""The runner killed at any moment, and started again: the same table, no finished cell run twice, no worker left."""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

from kvlab import KVLAB, folder, frame, main, run

EXPERIMENT = """kvlab: 1
name: killed
workloads:
  noise: {synthetic: gaussian, batch: 2, kv_heads: 2, query_heads: 4, tokens: {sweep: [200, 300, 400]}, head_dim: 32}
pipelines:
  raw: {}
  grid: {codec: {method: quantize, bits: {sweep: [8, 5, 4]}}}
  half: {select: [{method: random, keep: 0.5}], codec: {method: low_rank, rank: 4}}
measure: {speed: false}
"""


def table(path):
    cells = frame(path).drop(columns=["reserved_bytes", "peak_bytes"])
    return cells.to_csv()


MARK = f"KVLAB_TEST_MARK={os.getpid()}"  # in the environment of every process that this test starts


def workers():
    """Workers of this test that still run; other tests may be running theirs."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if b"__cell" in (process / "cmdline").read_bytes() and MARK.encode() in (process / "environ").read_bytes():
                found.append(process.name)
        except OSError:  # it ended meanwhile
            pass
    return found


def finished(cells):
    return {p.name: p.stat().st_mtime_ns for p in cells.glob("*.cell")} if cells.exists() else {}


def test_kill_and_resume():
    random.seed(4)
    os.environ.update([MARK.split("=")])
    with folder() as place:
        experiment = Path(place) / "e.yaml"
        experiment.write_text(EXPERIMENT)
        whole = Path(place) / "whole.h5"
        began = time.monotonic()
        assert run("run", experiment, "-o", whole).returncode == 0
        duration = time.monotonic() - began
        kills = 0
        for attempt in range(8):
            out = Path(place) / f"out{attempt}.h5"
            cells = Path(place) / f"out{attempt}.cells"
            for how in (signal.SIGKILL, signal.SIGKILL, signal.SIGINT):
                with subprocess.Popen([KVLAB, "run", str(experiment), "-o", str(out)], stdout=subprocess.DEVNULL,
                                      stderr=subprocess.DEVNULL) as process:
                    time.sleep(random.uniform(0, duration / 3))
                    kills += process.poll() is None
                    process.send_signal(how)  # nothing, when it has ended already
                    code = process.wait()
                assert code in (-how, 130, 0), code
            before = finished(cells)
            assert run("run", experiment, "-o", out).returncode == 0
            after = finished(cells)
            assert all(after[name] == stamp for name, stamp in before.items())
            assert table(out) == table(whole)
            assert run("run", experiment, "-o", out).returncode == 0  # its start removes what killed writers left
            assert not list(cells.glob("*.tmp.*")) + list(Path(place).glob("*.tmp.*"))
        assert kills > 10, kills
        time.sleep(0.2)
        assert not workers()


main(globals())
