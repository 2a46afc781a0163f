"""Includes go one way: core <- methods; core <- results <- experiments. Methods never include each other, nor the host."""

import os
import re
import sys
from pathlib import Path

ROOT = Path(os.environ["KVLAB_SOURCE"])
MAY_INCLUDE = {"core": {"core"}, "results": {"core", "results"}, "experiments": {"core", "results", "experiments"}}


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
    print("\n".join(wrong))
    print(f"{seen} includes seen, {len(wrong)} wrong")
    return 1 if wrong or seen < 100 else 0


sys.exit(main())
