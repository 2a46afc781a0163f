"""Does in an empty folder what the page of the decode loop says: page.py PAGE FOLDER, with PREFIX in the environment"""

import re
import subprocess
import sys
from pathlib import Path

page, folder = Path(sys.argv[1]), Path(sys.argv[2])
folder.mkdir()
blocks = re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(), re.M | re.S)
assert [kind for kind, _ in blocks] == ["sh", "cmake", "sh", "text", "text", "cpp"], blocks
copy, lists, build, printed, refused, program = (text for _, text in blocks)


def run(commands, code=0):
    done = subprocess.run(["bash", "-euc", commands], cwd=folder, capture_output=True, text=True)
    assert done.returncode == code, f"{commands}\n{done.returncode}\n{done.stdout}{done.stderr}"
    return done


run(copy)
(folder / "CMakeLists.txt").write_text(lists)
output = run(build).stdout
# The last digits of attention are the instruction set's.
shown, expected = output.splitlines()[-4:], printed.splitlines()
assert shown[:3] == expected[:3], f"{output} is not {printed}"
error, page_error = (float(lines[3].split()[2]) for lines in (shown, expected))
assert abs(error - page_error) < 1e-3 and shown[3].split()[3:] == expected[3].split()[3:], f"{output} is not {printed}"
assert run("build/decode bit=2", 2).stderr == refused
assert "is not NAME=VALUE" in run("build/decode --help", 2).stderr
run("build/decode bits=2 group=32")

# What the page shows of the program is in it.
lines = {line.strip() for line in (folder / "decode.cpp").read_text().splitlines()}
missing = [line for line in program.splitlines() if line.strip() not in lines]
assert not missing, missing
print("the page holds")
