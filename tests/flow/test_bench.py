"""`kvlab bench`: a run like any other, printed as speeds."""

import csv
import io

from kvlab import SOURCE, folder, frame, main, run

EXPERIMENT = """kvlab: 1
name: tiny
workloads:
  noise: {synthetic: gaussian, kv_heads: 2, query_heads: 8, head_dim: 64, tokens: 400, prefill: 300, decode: true}
pipelines:
  bf16: {}
  int8: {codec: {method: quantize}}
measure: {min_samples: 3, max_seconds: 0.05, plain: true}
"""


def test_bench_prints_speeds_of_a_run():
    with folder() as name:
        path = f"{name}/tiny.yaml"
        with open(path, "w") as file:
            file.write(EXPERIMENT)
        text = run("bench", path, cwd=name)
        assert text.returncode == 0, text.stderr
        assert "GB/s read" in text.stdout and "attend_roof" in text.stdout, text.stdout
        rows = list(csv.DictReader(io.StringIO(run("bench", path, "--csv", cwd=name).stdout)))  # nothing runs again
        cells = frame(f"{name}/results/runs/tiny.h5").set_index("pipeline")
    assert [row["pipeline"] for row in rows] == ["bf16", "int8"] and rows[0]["x_raw"] == "1.00"
    int8 = cells.loc["int8"]
    assert float(rows[1]["x_plain"]) > 0
    assert abs(float(rows[1]["x_plain"]) - int8.plain_attend_seconds / int8.attend_seconds) < 0.06
    assert abs(float(rows[1]["x_raw"]) - cells.loc["bf16"].attend_seconds / int8.attend_seconds) < 0.006


def test_every_experiment_that_comes_with_kvlab_can_be_planned():
    files = sorted((SOURCE / "configs").glob("*.yaml"))
    assert len(files) >= 3
    for file in files:
        result = run("plan", file)
        assert result.returncode == 0, (file, result.stderr)


def test_bench_needs_its_file():
    with folder() as name:
        result = run("bench", cwd=name, env={"KVLAB_ROOT": name})
    assert result.returncode == 2 and "configs/bench.yaml: there is no such file" in result.stderr, result.stderr


main(globals())
