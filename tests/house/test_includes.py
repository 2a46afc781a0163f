"""Includes go one way: core <- methods; core <- results <- experiments, and between the folders of core and experiments.
Methods never include each other, nor the host."""

import os
import re
import sys
from pathlib import Path

ROOT = Path(os.environ["KVLAB_SOURCE"])
MAY_INCLUDE = {"core": {"core"}, "results": {"core", "results"}, "experiments": {"core", "results", "experiments"}}

# Floors: each folder includes those before it. Tests may look anywhere.
FLOORS = {
    "core": [".", "base", "registry", "kernels", "method", "memory", "pipeline", "backend", "backend/cpu", "head", "cache",
             "conformance", "examples"],
    "experiments": ["config", "measure", "workloads", "metrics", "plan", "run", "app"],
}


def floor_of(folder, floors):
    """A folder below one of the list is of its floor, unless it has one of its own."""
    return folder if folder in floors else folder.split("/")[0]


def includes(path):
    return re.findall(r'^\s*#\s*include\s*"([^"]+)"', path.read_text(), re.M)


def sources(room):
    return [p for p in (ROOT / room).rglob("*") if p.suffix in (".hpp", ".h", ".cpp")]


def main():
    wrong, seen = [], 0
    for room, allowed in MAY_INCLUDE.items():
        for path in sources(room):
            for name in includes(path):
                seen += 1
                test_support = path.name.endswith("_test.cpp") and name.startswith("tests/support/")
                if name.split("/")[0] not in allowed and not test_support:
                    wrong.append(f"{path}: {name}")
    for path in sources("methods"):
        for name in includes(path):
            seen += 1
            if not (path.parent / name).is_file() or "/" in name:
                wrong.append(f"{path}: {name}: a method includes <kvlab/...> and its own folder only")
    for path in sources("core"):
        if path.parent.name == "examples":  # a user's code, which chooses a method
            continue
        for method in (p.name for p in (ROOT / "methods").iterdir() if p.is_dir()):
            if not path.name.endswith("_test.cpp") and f'"{method}"' in path.read_text():
                wrong.append(f"{path}: names the method {method}")
    for room, floors in FLOORS.items():
        for path in sources(room):
            own = floor_of(path.parent.relative_to(ROOT / room).as_posix(), floors)
            if path.name.endswith("_test.cpp") or own.startswith("include"):
                continue
            if own not in floors:
                wrong.append(f"{path}: folder {own} has no floor in tests/house")
                continue
            for name in includes(path):
                if not name.startswith(f"{room}/"):
                    continue
                other = floor_of(Path(name).relative_to(room).parent.as_posix(), floors)
                if other in floors and floors.index(other) > floors.index(own):
                    wrong.append(f"{path}: {name}: {own} is below {other}")
    print("\n".join(wrong))
    print(f"{seen} includes seen, {len(wrong)} wrong")
    return 1 if wrong or seen < 100 else 0


sys.exit(main())
