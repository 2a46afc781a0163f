"""The script at the root, over a checkout of one program and one method that real CMake and Ninja build in seconds."""

import os
import pty
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

SOURCE = Path(os.environ["KVLAB_SOURCE"])
NOBODY = 65534

CMAKELISTS = """cmake_minimum_required(VERSION 3.25)
project(kvlab LANGUAGES CXX)
add_executable(kvlab main.cpp)
set_target_properties(kvlab PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR})
add_library(method MODULE method.cpp)
foreach(i RANGE 1 12)
  add_custom_command(OUTPUT step${i} COMMAND ${CMAKE_COMMAND} -E touch step${i})
  list(APPEND steps step${i})
endforeach()
add_custom_target(steps ALL DEPENDS ${steps})
"""
METHODS = """
add_library(kvlab_flags INTERFACE)
function(kvlab_add_method name)
  cmake_parse_arguments(PARSE_ARGV 1 method "" "" SOURCES)
  add_library(kvlab_method_${name} MODULE ${method_SOURCES})
  set_target_properties(kvlab_method_${name} PROPERTIES PREFIX "" OUTPUT_NAME ${name})
endfunction()
add_subdirectory(methods)
"""
MAIN = '#include <cstdio>\nint main() { std::puts(SAYS); }\n'


def checkout(place, says="first"):
    """A tree with kvlab's own script and presets."""
    tree = Path(place)
    for name in ("kvlab", "CMakePresets.json"):
        shutil.copy(SOURCE / name, tree / name)
    (tree / "CMakeLists.txt").write_text(CMAKELISTS)
    (tree / "main.cpp").write_text(MAIN.replace("SAYS", f'"{says}"'))
    (tree / "method.cpp").write_text("int method() { return 1; }\n")
    tools = tree / "tools"  # packages are not this test's matter
    tools.mkdir()
    (tools / "dpkg-query").write_text("#!/bin/sh\nprintf installed\n")
    (tools / "dpkg-query").chmod(0o755)
    return tree


def environment(tree):
    return {**os.environ, "PATH": f"{tree / 'tools'}:{os.environ['PATH']}", "KVLAB_PRESET": "release"}


def start(tree, *arguments, **more):
    return subprocess.run([tree / "kvlab", *arguments], env=environment(tree), capture_output=True, text=True,
                          check=False, timeout=120, **more)


def folder():
    return tempfile.TemporaryDirectory(prefix="kvlab-wrapper-")


def test_it_builds_and_says_how_far_it_is():
    with folder() as place:
        tree = checkout(place)
        result = start(tree, "list")
        assert (result.returncode, result.stdout) == (0, "first\n"), result.stderr
        lines = result.stderr.splitlines()
        assert lines[0] == "kvlab: configuring (release)"
        counts = [line for line in lines if line.startswith("kvlab: building [")]
        total = counts[-1].split("/")[1]
        assert 2 <= len(counts) <= 10 and counts[-1] == f"kvlab: building [{total[:-1]}/{total}", lines


def test_on_a_terminal_progress_is_one_line():
    with folder() as place:
        tree = checkout(place)
        terminal, end = pty.openpty()
        subprocess.run([tree / "kvlab", "list"], env=environment(tree), stdout=subprocess.DEVNULL, stderr=end, check=True,
                       timeout=120)
        os.close(end)
        shown = os.read(terminal, 65536).decode()
        os.close(terminal)
        assert shown.count("building [") >= 10 and shown.count("\n") == 1, shown  # "configuring" ends its line


def test_one_build_at_a_time_and_the_second_says_that_it_waits():
    with folder() as place:
        tree = checkout(place)
        start(tree, "list")
        lock = tree / "build/release/lock"
        with subprocess.Popen(["flock", lock, "sh", "-c", f"echo $$ >{lock}; echo held; read line"], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True) as holder:
            assert holder.stdout.readline() == "held\n"
            with subprocess.Popen([tree / "kvlab", "list"], env=environment(tree), stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True) as second:
                said = second.stderr.readline()
                assert said == f"kvlab: waiting for another build here (pid {lock.read_text().strip()})\n", said
                assert second.poll() is None
                holder.stdin.write("\n")
                holder.stdin.close()
                assert second.stdout.read() == "first\n" and second.wait() == 0


def test_many_starts_at_once_all_work():
    with folder() as place:
        tree = checkout(place)
        results = []
        threads = [threading.Thread(target=lambda: results.append(start(tree, "list"))) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [r.stdout for r in results] == ["first\n"] * 3, [r.stderr for r in results]
        assert sum("configuring" in r.stderr for r in results) == 1


def test_a_copied_checkout_builds_its_own_sources():
    with folder() as place, folder() as other:
        tree = checkout(place)
        start(tree, "list")
        copy = Path(other) / "copy"
        shutil.copytree(tree, copy)
        (copy / "main.cpp").write_text(MAIN.replace("SAYS", '"copy"'))
        result = start(copy, "list")
        assert result.stdout == "copy\n", result.stderr
        assert f"moved or copied from {tree.resolve()}: configuring afresh" in result.stderr
        assert "moved" not in start(copy, "list").stderr
        moved = Path(other) / "moved"
        copy.rename(moved)
        assert start(moved, "list").stdout == "copy\n"
        assert start(tree, "list").stdout == "first\n"


def test_what_only_reads_works_with_the_last_build():
    with folder() as place:
        tree = checkout(place)
        start(tree, "list")
        (tree / "method.cpp").write_text("int method() { return one; }\n")
        for command in ("list", "describe", "show", "trace", "plan", "new", "--version"):
            result = start(tree, command)
            assert (result.returncode, result.stdout) == (0, "first\n"), (command, result.stderr)
            assert len(result.stderr.splitlines()) == 1, result.stderr
            assert "the last one that worked: " in result.stderr and "method.cpp:1:23: error:" in result.stderr
        result = start(tree, "run", "x.yaml")
        assert result.returncode == 1 and result.stdout == ""
        assert "the build failed; the first error: " in result.stderr.splitlines()[-1]
        (tree / "method.cpp").write_text("int method() { return 2; }\n")
        assert start(tree, "run").stdout == "first\n"
        # What CMake refuses has its reason behind its first line.
        (tree / "CMakeLists.txt").write_text(CMAKELISTS + 'message(FATAL_ERROR "methods/m needs a README.md")\n')
        last = start(tree, "run").stderr.splitlines()[-1]
        assert "the first error: CMake Error at " in last and last.endswith(" methods/m needs a README.md"), last


def test_the_library_of_a_removed_method_is_removed():
    with folder() as place:
        tree = checkout(place)
        (tree / "CMakeLists.txt").write_text(CMAKELISTS + METHODS)
        for name in ("stays", "goes"):
            (tree / "methods" / name).mkdir(parents=True)
            (tree / "methods" / name / f"{name}.cpp").write_text("int method() { return 1; }\n")
            (tree / "methods" / name / "README.md").write_text(name)
        shutil.copy(SOURCE / "methods/CMakeLists.txt", tree / "methods")
        start(tree, "list")
        built = tree / "build/release/methods"
        assert {p.name for p in built.glob("*.so")} == {"stays.so", "goes.so"}
        shutil.rmtree(tree / "methods/goes")
        result = start(tree, "list")
        assert result.returncode == 0 and {p.name for p in built.glob("*.so")} == {"stays.so"}, result.stderr


def test_another_users_checkout_works_where_it_is_built():
    if os.getuid() != 0:
        print("  (not root: nobody cannot be played)")
        return
    with folder() as place:
        tree = checkout(place)
        tree.chmod(0o755)
        nobody = {"user": NOBODY, "group": NOBODY, "extra_groups": [], "cwd": "/"}
        result = start(tree, "list", **nobody)
        assert result.returncode == 1 and f"{tree} cannot be written" in result.stderr, result.stderr
        start(tree, "list")
        result = start(tree, "run", **nobody)
        assert (result.returncode, result.stdout, result.stderr) == (0, "first\n", "")
        assert start(tree, "test", **nobody).returncode == 1


def main():
    for name, test in list(globals().items()):
        if name.startswith("test_"):
            test()
            print("passed", name)


sys.exit(main())
