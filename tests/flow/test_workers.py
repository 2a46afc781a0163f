"""Workers that die in every way are rows with a status and a reason, and the grid goes on."""

import os
import subprocess
import time
from pathlib import Path

from kvlab import KVLAB, PLUGINS, folder, frame, main, run, started

EXPERIMENT = """kvlab: 1
name: deaths
workloads:
  noise: {synthetic: gaussian, kv_heads: 2, query_heads: 2, tokens: 100, head_dim: 16}
pipelines:
  codec: {codec: {method: misbehave, how: {sweep: [HOWS]}}}
  judge: {select: [{method: misjudge, keep: 0.5}]}
  blind: {select: [{method: attention_score, keep: 0.5}]}
measure: {speed: false}
limits: {seconds: 600, memory: 1GiB}
"""

# How the plugin misbehaves: the status, and a part of the reason. A sanitizer turns a signal into an exit code.
EXPECTED = {
    "fine": ("ok", ""),
    "segfault": ("crashed", " in misbehave's encode"),
    "abort": ("crashed", " in misbehave's encode"),
    "exit": ("crashed", "the worker ended with exit code 3 in misbehave's encode"),
    "exit_zero": ("crashed", "the worker ended without a result in misbehave's encode"),
    "eat_memory": ("out_of_memory", "the limit is 1.00 GiB, in misbehave's encode"),
    "nan": ("failed", "a decoded block is not finite in layer 0, sequence 0, head"),
    "throws": ("failed", "misbehave: something inside went wrong"),
    "unsupported": ("unsupported", "misbehave: not for this shape"),
    "out_of_memory": ("out_of_memory", "misbehave: out of memory"),
    "wrong_sum": ("failed", "misbehave: encode's parts do not add up to its size"),
    "too_long": ("failed", "misbehave: encode wrote more than bound() said"),
    "too_short": ("failed", "misbehave: encode did not fill bound()"),
    "reserved_trait": ("failed", "misbehave: traits.reserved is 7; valid: 0"),
    "invalid_at_create": ("failed", "misbehave: these parameters do not go together"),
    "spam": ("crashed", "it said: a line that nobody reads"),
    "huge_bound": ("failed", "misbehave: bound(64) is above 1 TiB"),
    "wraps": ("failed", "misbehave: encode's parts do not add up to its size"),
    "huge_prepared": ("failed", "misbehave: prepared_bytes is above 4 GiB"),
    "infinite_score": ("failed", "an attention score is not finite in layer 0, KV head"),
    "zero_block": ("failed", "misbehave: block_tokens is 0"),
}


def test_every_death_is_a_row():
    with folder() as place:
        experiment = Path(place) / "e.yaml"
        experiment.write_text(EXPERIMENT.replace("HOWS", ", ".join(EXPECTED)))
        for jobs in (1, 3):
            out = Path(place) / f"out{jobs}.h5"
            result = run("run", experiment, "--plugins", PLUGINS, "-o", out, "--jobs", jobs)
            assert result.returncode == 1, result.stderr
            cells = frame(out)
            assert len(cells) == len(EXPECTED) + 2
            for _, row in cells.iterrows():
                if row["pipeline"] == "codec":
                    status, reason = EXPECTED[row["codec.how"]]
                elif row["pipeline"] == "judge":
                    status, reason = "failed", "misjudge: the score of token 0 is NaN"
                else:
                    status, reason = "ok", ""
                assert (row["status"], reason in row["reason"]) == (status, True), (row["codec.how"], row["status"], row["reason"])
                assert row["raw_bytes"] == 2 * 2 * 100 * 16 * 2 and (row["bytes"] > 0) == (status == "ok")


def test_a_hang_ends_at_the_limit_and_is_named():
    with folder() as place:
        experiment = Path(place) / "e.yaml"
        experiment.write_text(EXPERIMENT.replace("HOWS", "hang"))
        for limit in (0.5, 5, 50):  # on a machine that needs longer to come to the call, the limit ends it before
            out = Path(place) / f"out{limit}.h5"
            assert run("run", experiment, "--plugins", PLUGINS, "-o", out, "--only", "codec/*",
                       "--set", f"limits.seconds={limit}").returncode == 1
            (row,) = (row for _, row in frame(out).iterrows())
            assert row["status"] == "timeout" and f"longer than the limit of {limit} s" in row["reason"], row["reason"]
            if row["reason"].endswith(", in misbehave's encode"):
                return
        assert False, row["reason"]


def test_what_a_worker_prints_is_kept_with_its_cell():
    with folder() as place:
        experiment = Path(place) / "e.yaml"
        experiment.write_text(EXPERIMENT.replace("HOWS", "fine, warn, spam"))
        result = run("run", experiment, "--plugins", PLUGINS, "-o", Path(place) / "out.h5", "--only", "codec/*")
        logs = frame(Path(place) / "out.h5").set_index("codec.how")["log"]
        assert logs["fine"] == ""
        assert logs["warn"] == "warning: misbehave: a value is \\x1b[31mred\nnot in a log\n", logs["warn"]
        assert "warning: misbehave warned 1 time in 1 cell (column `log`), the last time: a value" in result.stderr
        assert "\x1b" not in result.stderr, result.stderr
        first, *lines = logs["spam"].splitlines()
        # Less than 100,000 x 2 lines: what is dropped is counted.
        assert first.endswith(" lines before these were dropped)") and int(first[1:].split()[0]) > 90_000, first
        assert set(lines) <= {"a line that nobody reads, again and again"} | {lines[0]} and len(logs["spam"]) < 20_000


def test_retry_runs_failed_cells_again_and_no_other():
    with folder() as place:
        experiment = Path(place) / "e.yaml"
        experiment.write_text(EXPERIMENT.replace("HOWS", "fine, throws, unsupported"))
        command = ["run", experiment, "--plugins", PLUGINS, "-o", Path(place) / "out.h5"]
        assert run(*command).returncode == 1
        assert "[" not in run(*command).stderr  # a failure is a result
        again = run(*command, "--retry")
        assert "3 of 5 cells are done already" in again.stderr and "[2/2]" in again.stderr, again.stderr


def test_a_damaged_cell_is_measured_again():
    with folder() as place:
        experiment = Path(place) / "e.yaml"
        experiment.write_text(EXPERIMENT.replace("HOWS", "fine"))
        command = ["run", experiment, "--plugins", PLUGINS, "-o", Path(place) / "out.h5", "--only", "codec/*"]
        assert run(*command).returncode == 0
        (cell,) = (Path(place) / "out.cells").glob("*.cell")
        whole = cell.read_bytes()
        for damaged in (whole[:1000], whole[:200] + b"x" + whole[201:], b"text", b""):
            cell.write_bytes(damaged)
            again = run(*command)
            assert again.returncode == 0 and "measured again" in again.stderr, again.stderr
            assert (frame(Path(place) / "out.h5")["status"] == "ok").all()


def test_a_finished_cell_stays_until_another_takes_its_place():
    with folder() as place:
        experiment = Path(place) / "e.yaml"
        experiment.write_text(EXPERIMENT.replace("HOWS", "hang"))
        out, cells = Path(place) / "out.h5", Path(place) / "out.cells"
        command = ["run", experiment, "--plugins", PLUGINS, "-o", out, "--only", "codec/*"]
        assert run(*command, "--set", "limits.seconds=0.2").returncode == 1
        before = {p.name: p.read_bytes() for p in cells.glob("*.cell")}
        assert len(before) == 1
        for flag in ("--retry", "--fresh"):
            with subprocess.Popen([KVLAB, *map(str, command), flag], stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL, env={**os.environ, "KVLAB_TEST_MARK": place}) as process:
                while not started(place):
                    time.sleep(0.02)
                process.kill()
            assert before == {p.name: p.read_bytes() for p in cells.glob("*.cell")}, flag


main(globals())
