"""Whatever a cell's plugins do, its neighbours, the runner and what is finished are not hurt."""

import os
import subprocess
from pathlib import Path

from kvlab import KVLAB, PLUGINS, folder, frame, main

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


main(globals())
