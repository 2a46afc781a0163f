"""The command line: what each command prints, its exit codes, one line for what is refused."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import h5py
from kvlab import KVLAB, PLUGINS, SOURCE, TRACE, folder, frame, main, root, run

SMALL = """kvlab: 1
name: small
workloads:
  noise: {synthetic: gaussian, batch: 2, kv_heads: 2, query_heads: 4, tokens: 96, head_dim: 16}
pipelines:
  raw: {}
  grid: {codec: {method: quantize, bits: {sweep: [8, 4]}}}
measure: {speed: true, min_samples: 3, max_seconds: 0.05}
"""


def refused(result, *parts):
    assert result.returncode == 2, (result.returncode, result.stderr)
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    for part in parts:
        assert part in result.stderr, (part, result.stderr)


def test_wrong_flags_are_refused_in_one_line():
    refused(run("ran"), "no command 'ran'", "'run'")
    refused(run("list", "--jsn"), "no flag '--jsn'", "'--json'")
    refused(run("run"), "FILE")
    refused(run("describe", "quantise"), "no method, generator or column of results 'quantise'", "'quantize'")
    refused(run("new", "x", "--kind", "codek"), "--kind 'codek'; valid: codec, selector")
    refused(run(), "subcommand")
    refused(run("show", "/nowhere.h5"), "/nowhere.h5: there is no such file")
    refused(run("trace", "/nowhere.h5"), "/nowhere.h5: there is no such file")
    refused(run("run", "/nowhere.yaml"), "/nowhere.yaml: there is no such file")


def test_a_library_that_is_not_used_is_told():
    with folder() as place:
        here = Path(place)
        (here / "m").mkdir()
        shutil.copy(PLUGINS.parent.parent / "methods" / "magnitude.so", here / "m" / "zz.so")
        (here / "e.yaml").write_text(SMALL.replace("  raw: {}", "  raw: {}\n  m: {select: [{method: magnitude, keep: 0.5}]}"))
        planned = run("plan", here / "e.yaml", "--plugins", here / "m")
        assert planned.returncode == 0, planned.stderr
        assert f"magnitude.so is not used: 'magnitude' is the method of {here / 'm' / 'zz.so'}" in planned.stderr, planned.stderr
        assert "is not used" not in run("plan", here / "e.yaml", "--plugins", here / "m", "--only", "raw").stderr
        refused(run("check", "zz", "--plugins", here / "m"), "there is no method 'zz'", "its id is 'magnitude'")
        other = run("check", "magnitude", "--plugins", here / "m", "--only", "parts")
        assert "none of these checks is for a selector" in other.stdout and other.returncode == 1, other.stdout


def test_an_instruction_set_that_is_not_there_is_refused():
    refused(run("list", env={"KVLAB_ISA": "avx3"}), "KVLAB_ISA is 'avx3'", "valid here: scalar")
    assert run("list", env={"KVLAB_ISA": "scalar"}).returncode == 0


def test_what_cannot_be_used_is_refused_before_work():
    with folder() as place:
        experiment = Path(place) / "e.yaml"
        experiment.write_text(SMALL)
        for jobs in ("0", "-1", "100000"):
            refused(run("run", experiment, "--jobs", jobs, cwd=place), f"--jobs {jobs}: valid: 1 .. 1024")
        refused(run("list", "--plugins", "/nowhere"), "--plugins /nowhere: there is no such file or folder")
        refused(run("list", env={"KVLAB_PLUGIN_PATH": "/nowhere"}), "KVLAB_PLUGIN_PATH: /nowhere: there is no such file")
        assert run("plan", "--plugins", PLUGINS, experiment).returncode == 0  # the flag takes one word
        refused(run("show", f"{place}/x"), "x: there is no such file; a result's name ends in .h5")
        (Path(place) / "file").write_text("")
        refused(run("run", experiment, "-o", "file/x.h5", cwd=place), "file/x.cells: cannot be made: Not a directory")
        (Path(place) / "x.h5").mkdir()
        refused(run("run", experiment, "-o", "x.h5", cwd=place), "x.h5: is a folder")
        # Control characters of the input reach no terminal, and the line stays one.
        experiment.write_text(SMALL.replace("method: quantize", 'method: "a\\nb\\e[31m"'))
        refused(run("run", experiment, cwd=place), "there is no codec 'a\\nb\\x1b[31m'")


def test_output_that_cannot_be_written_is_no_success():
    with open("/dev/full", "w", encoding="utf-8") as full:
        assert subprocess.run([KVLAB, "list"], stdout=full, stderr=subprocess.PIPE, check=False).returncode == 1


def test_a_pipe_is_an_experiment_too():
    with folder() as place:
        out = Path(place) / "x.h5"
        result = subprocess.run([KVLAB, "run", "/dev/stdin", "--only", "raw/*", "-o", out], input=SMALL, text=True,
                                capture_output=True, check=False)
        assert result.returncode == 0, result.stderr
        with h5py.File(out) as file:
            assert file["experiment/source"][()].decode() == SMALL


def test_help_everywhere():
    for command in ([], ["list"], ["describe"], ["new"], ["plan"], ["run"], ["show"], ["trace"]):
        result = run(*command, "--help")
        assert result.returncode == 0 and "Usage" in result.stdout, command


def test_list_shows_all_and_refused_ones_with_their_reason():
    result = run("list", env={"KVLAB_PLUGIN_PATH": str(PLUGINS / "refused")})
    assert result.returncode == 0
    for text in ("quantize", "low_rank", "gaussian", "output_error", "cuda", "refused: it was built for plugin ABI 99",
                 "refused: it has no symbol kvlab_plugin", "refused: opening it crashes (SIGABRT)"):
        assert text in result.stdout, text
    listed = json.loads(run("list", "--json", "--plugins", PLUGINS).stdout)
    assert {"quantize", "misbehave"} <= {m["id"] for m in listed["methods"]}
    assert any(library["state"] == "refused" for library in listed["libraries"])


def test_a_library_built_without_optimization_is_told():
    sentence = "unoptimized was built without optimization (by g++ "
    assert sentence in run("list", "--plugins", PLUGINS).stdout
    listed = {m["id"]: m for m in json.loads(run("list", "--json", "--plugins", PLUGINS).stdout)["methods"]}
    assert not listed["unoptimized"]["optimized"] and listed["unoptimized"]["compiler"].startswith("g++ ")
    with folder() as place:
        experiment = Path(place) / "e.yaml"
        experiment.write_text(SMALL.replace("  raw: {}", "  slow: {select: [{method: unoptimized, keep: 0.5}]}"))
        result = run("run", experiment, "--plugins", PLUGINS, cwd=place)
        assert result.stderr.count(sentence) == 1, result.stderr
        cells = frame(Path(place) / "results/runs/small.h5").set_index("pipeline")
        found = json.loads(cells.loc["slow"].methods)[0]
        assert len(found.pop("library")) == 32
        assert found == {
            "method": "unoptimized", "version": "1", "compiler": listed["unoptimized"]["compiler"], "optimized": False}


def test_files_in_the_way_are_told():
    with folder() as place:
        here = Path(place)
        (here / "e.yaml").write_text(SMALL)
        refused(run("plan", "e.yaml", "--set", "workloads.noise={trace: ''}", cwd=here), "trace is no name of a file")
        refused(run("run", "e.yaml", "-o", "", cwd=here), "-o '': a result's name ends in .h5")
        (here / "x.cells").mkdir()
        (here / "x.cells/plan").symlink_to("plan")
        refused(run("run", "e.yaml", "-o", "x.h5", cwd=here), "x.cells/plan: it cannot be read: Too many levels")
        (here / "x.cells/plan").unlink()
        (here / "x.cells/lock").unlink()
        os.mkfifo(here / "x.cells/lock")
        refused(run("run", "e.yaml", "-o", "x.h5", cwd=here), "x.cells/lock: it is no plain file; remove it")
        (here / "cache/kvlab").mkdir(parents=True)
        os.mkfifo(here / "cache/kvlab/traces.json")
        home = {"XDG_CACHE_HOME": here / "cache"}
        assert run("trace", TRACE, env=home, timeout=60).returncode == 0
        limited = subprocess.run(["bash", "-c", f"ulimit -f 1; {KVLAB} run e.yaml --only raw -o y.h5"], cwd=here, check=False,
                                 capture_output=True, text=True, timeout=120)
        assert limited.returncode == 1 and "File too large" in limited.stderr, limited


def test_describe_names_parameters_paper_and_an_example():
    for name in ("quantize", "attention_score", "needle"):
        assert "example" in run("describe", name).stdout
    assert "unit 1\n|o - o^| / |o| over the attention outputs" in run("describe", "output_error").stdout
    refused(run("describe", "codec.bits"), "'codec.bits' is a parameter; describe a method that has it: quantize")
    refused(run("describe", "output_eror"), "the nearest valid name is 'output_error'")
    text = run("describe", "quantize").stdout
    for part in ("2402.02750", "valid: 2, 3, 4, 5, 6, 8", "default per_token", "attention on the bytes: keys yes"):
        assert part in text, part


def test_new_makes_a_folder_once_and_only_beside_methods():
    with folder() as place:
        refused(run("new", "mine", "--kind", "codec", cwd=place, env={"KVLAB_ROOT": place}), "no folder methods")
        (Path(place) / "methods").mkdir()
        assert run("new", "mine", "--kind", "codec", cwd=place, env={"KVLAB_ROOT": place}).returncode == 0
        assert (Path(place) / "methods/mine/README.md").exists()
        refused(run("new", "mine", "--kind", "codec", env={"KVLAB_ROOT": place}), "there already")
        refused(run("new", "Mine", "--kind", "codec", env={"KVLAB_ROOT": place}), "[a-z]")


def test_only_takes_names_globs_and_several():
    with folder() as place:
        experiment = Path(place) / "e.yaml"
        experiment.write_text(SMALL + "exclude: [{pipeline: raw, codec.bits: 8}, {codec.bits: 5}]\n")

        def planned(*words):
            result = run("plan", experiment, *words)
            assert result.returncode == 0, result.stderr
            return len(result.stdout.splitlines()), result.stderr

        assert planned("--only", "grid")[0] == 2 and planned("--only", "g*/noise")[0] == 2
        assert planned("--only", "raw", "--only", "grid/noise/cpu")[0] == 3
        refused(run("plan", experiment, "--only", "raw", "--only", "gird"),
                "--only gird: it matches no cell", "the nearest valid name is 'grid'")
        # A rule that drops nothing is told with what it wanted.
        warned = planned()[1]
        assert "e.yaml:9:11: this rule of exclude drops no cell: each of its values is some cell's" in warned, warned
        assert "e.yaml:9:43: this rule of exclude drops no cell: no cell has codec.bits 5; the nearest that one has is 4" in warned, warned


def test_one_sentence_for_a_file_that_cannot_be_used():
    with folder() as place:
        (Path(place) / "folder").mkdir()
        for name, sentence in (("nowhere", "there is no such file"), ("folder", "it is a folder")):
            path = f"{place}/{name}"
            for command in ("run", "plan", "show", "trace"):
                refused(run(command, path, cwd=place), f"{path}: {sentence}")
            experiment = Path(place) / "e.yaml"
            experiment.write_text(SMALL.replace("synthetic: gaussian", f"trace: {path}").replace(
                ", batch: 2, kv_heads: 2, query_heads: 4, tokens: 96, head_dim: 16", ""))
            refused(run("run", experiment, cwd=place), f"{path}: {sentence}")


def test_plan_runs_nothing():
    with folder() as place:
        experiment = Path(place) / "e.yaml"
        experiment.write_text(SMALL)
        result = run("plan", experiment, cwd=place)
        assert result.returncode == 0 and len(result.stdout.splitlines()) == 3
        cells = json.loads(run("plan", experiment, "--json", "--only", "grid/*").stdout)
        assert [cell["parameters"]["codec"]["bits"] for cell in cells] == [8, 4]
        assert not (Path(place) / "results").exists()
        refused(run("plan", experiment, "--only", "nothing*"), "--only nothing*: it matches no cell")


def test_a_refused_experiment_writes_nothing():
    with folder() as place:
        experiment = Path(place) / "e.yaml"
        experiment.write_text(SMALL.replace("sweep: [8, 4]", "sweep: [8, 7]"))
        refused(run("run", experiment, cwd=place), f"{experiment}:7:54: bits is 7; the nearest valid value is 6")
        refused(run("run", experiment, "--set", "pipelines.grid.codec.bits=9", cwd=place), "--set pipelines.grid.codec.bits=9: ")
        refused(run("run", experiment, "-o", "x.nc", "--set", "pipelines.grid.codec.bits=8", cwd=place), "ends in .h5")
        assert sorted(p.name for p in Path(place).iterdir()) == ["e.yaml"]


def test_a_run_can_be_read_and_goes_on_where_it_stopped():
    with folder() as place:
        experiment = Path(place) / "e.yaml"
        experiment.write_text(SMALL)
        assert run("run", experiment, "--only", "raw/*", "-o", Path(place) / "out.h5").returncode == 0
        first = run("run", experiment, "-o", Path(place) / "out.h5")
        assert first.returncode == 0 and "1 of 3 cells are done already" in first.stderr, first.stderr
        times = {p.name: p.stat().st_mtime_ns for p in (Path(place) / "out.cells").glob("*.cell")}
        again = run("run", experiment, "-o", Path(place) / "out.h5")
        assert "3 of 3 cells are done already" in again.stderr
        assert times == {p.name: p.stat().st_mtime_ns for p in (Path(place) / "out.cells").glob("*.cell")}
        for engine in ("netcdf4", "h5netcdf"):
            cells = frame(Path(place) / "out.h5", engine=engine)
            assert list(cells["pipeline"]) == ["raw", "grid", "grid"]
            assert list(cells["codec.bits"])[1:] == [8, 4] and cells["codec.bits"].isna()[0]
            assert (cells["status"] == "ok").all()
            parts = ["payload_bytes", "scale_bytes", "index_bytes", "basis_bytes", "uncompressed_bytes"]
            assert (cells[parts].sum(axis=1) == cells["bytes"]).all()
            assert cells["compress_seconds"].dtype == float and (cells["compress_seconds"] > 0).all()
            assert cells["attend_roofline"].isna().all()  # far below two last-level caches
            assert len(frame(Path(place) / "out.h5", "layers", engine)) == 3
            assert set(frame(Path(place) / "out.h5", "samples", engine)["metric"]) == {"compress", "decompress", "attend"}
        attributes = root(Path(place) / "out.h5")
        assert attributes["format"] == "kvlab-results" and attributes["version"] == 1
        assert attributes["peak_read_bandwidth"] > 1e8
        fresh = run("run", experiment, "--fresh", "-o", Path(place) / "out.h5")
        assert "done already" not in fresh.stderr
        csv = run("show", Path(place) / "out.h5", "--csv", "--sort", "-bytes", "--columns", "pipeline,codec.bits").stdout
        assert csv == "pipeline,codec.bits\nraw,\ngrid,8\ngrid,4\n"


def test_labels_for_the_same_thing_are_measured_once():
    with folder() as place:
        experiment = Path(place) / "e.yaml"
        experiment.write_text(SMALL + "")
        result = run("run", experiment, "--set", "pipelines.twin={codec: {method: quantize, bits: 8}}", cwd=place)
        assert "[3/3]" in result.stderr and "[4/4]" not in result.stderr
        cells = frame(Path(place) / "results/runs/small.h5")
        assert list(cells["pipeline"]) == ["raw", "grid", "grid", "twin"]
        assert cells["id"][1] == cells["id"][3]


def test_an_absent_backend_is_skipped():
    with folder() as place:
        experiment = Path(place) / "e.yaml"
        experiment.write_text(SMALL + "backends: [cpu, cuda]\n")
        assert run("run", experiment, cwd=place).returncode == 0
        cells = frame(Path(place) / "results/runs/small.h5")
        assert list(cells["status"][cells["backend"] == "cuda"].unique()) == ["skipped"]


def test_trace_says_what_it_holds():
    text = run("trace", TRACE).stdout
    for part in ("SmolLM2-135M", "2 sequences, 1152 tokens, prefill 1024", "3 KV, 9 query", "2 11 20 29 of 30"):
        assert part in text, text


def test_shipped_experiments_are_valid():
    for experiment in (SOURCE / "configs").glob("*.yaml"):
        assert run("plan", experiment).returncode == 0, experiment


main(globals())
