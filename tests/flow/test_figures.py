"""What the pages say of the two recorded caches, measured again and judged by the oracle."""

import re
import subprocess
import sys

from kvlab import SOURCE, folder, frame, main, run

ORACLE = SOURCE / "tests/oracle/oracle.py"
TRACES = sorted((SOURCE / "configs/traces").glob("*.h5"))


def measure(config, name):
    """output_error of each (pipeline, workload) of an experiment, after the oracle agreed with all of its rows."""
    result = f"{name}/{config}.h5"
    done = run("run", SOURCE / f"configs/{config}.yaml", "--set", "measure.speed=false", "-o", result, cwd=name)
    assert done.returncode == 0, done.stderr
    judged = subprocess.run([sys.executable, ORACLE, result, "--trace", *TRACES], capture_output=True, text=True,
                            check=False)
    assert judged.returncode == 0, judged.stdout + judged.stderr
    cells = frame(result)
    return cells.set_index(["pipeline", "workload"]).output_error


def table(heading):
    """The rows of the table in README.md whose first column is headed so: [first cell, the others as numbers]."""
    lines = (SOURCE / "README.md").read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith(f"| {heading} |"))
    rows = []
    for line in lines[at + 2:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def agree(text, value):
    """`text` is `value` at its own number of digits."""
    digits = len(re.sub(r"e.*", "", text.partition(".")[2])) if "." in text else 0
    return float(text) == 0 if value == 0 else abs(float(text) - value) <= 0.51 * 10.0 ** -digits


def test_two_traces_are_shipped():
    assert [path.name for path in TRACES] == ["smollm2-135m-copy.h5", "smollm2-135m.h5"]
    for path in TRACES:
        assert f"configs/traces/{path.name}" in (SOURCE / "NOTICE").read_text()


def test_retrieval_is_what_the_page_says():
    with folder() as name:
        errors = measure("copy", name)
    rows = table("kept of the cache")
    assert len(rows) == 7, rows
    for pipeline, plain, copy in rows:
        pipeline = re.search(r"`(\w+)`", pipeline)[1]
        assert agree(plain, errors[pipeline, "plain"]), (pipeline, plain, errors[pipeline, "plain"])
        assert agree(copy, errors[pipeline, "copy"]), (pipeline, copy, errors[pipeline, "copy"])
    # A score learnt from the prompt's own queries, and chance.
    assert errors["attention_score", "plain"] < 0.6 * errors["random", "plain"]
    assert errors["attention_score", "copy"] > 1.1 * errors["random", "copy"]


def test_quickstart_is_what_the_page_says():
    with folder() as name:
        errors = measure("quickstart", name).to_list()
    rows = table("pipeline")
    assert len(rows) == len(errors)
    for row, error in zip(rows, errors):
        assert agree(row[-1], error) or error < 1e-6, (row, error)


main(globals())
