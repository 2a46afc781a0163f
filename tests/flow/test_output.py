"""One writer per output: a lock that ends with its holder, and paths that mean the same file."""

import ctypes
import os
import signal
import socket
import struct
import subprocess
from pathlib import Path

from kvlab import KVLAB, PLUGINS, folder, frame, main, run, started

HANGS = """kvlab: 1
name: hangs
workloads:
  noise: {synthetic: gaussian, kv_heads: 2, query_heads: 2, tokens: 100, head_dim: 16}
pipelines:
  raw: {}
  codec: {codec: {method: misbehave, how: hang}}
measure: {speed: false}
"""


def hanging_run(place, *arguments):
    """A run in its second cell, which never ends."""
    (Path(place) / "e.yaml").write_text(HANGS)
    command = ["run", "e.yaml", "--plugins", PLUGINS, *arguments]
    process = subprocess.Popen([KVLAB, *map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               cwd=place, env={**os.environ, "KVLAB_TEST_MARK": place})
    cells = Path(place) / "out.cells"
    while not (len(list(cells.glob("*.cell"))) == 1 and started(place)):
        assert process.poll() is None
    return process


def listing(place):
    return {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in Path(place).rglob("*") if not p.is_symlink()}


def test_a_second_run_says_who_writes_and_writes_nothing():
    with folder() as place:
        process = hanging_run(place, "-o", "out.h5")
        (Path(place) / "link.h5").symlink_to("out.h5")
        (Path(place) / "folder").symlink_to(place)
        before = listing(place)
        for name in ("out.h5", Path(place) / "out.h5", "link.h5", "folder/link.h5"):
            for flags in ([], ["--fresh"], ["--only", "raw/*"]):
                second = run("run", "e.yaml", "--plugins", PLUGINS, "-o", name, *flags, cwd=place)
                assert second.returncode == 2, second.stderr
                (line,) = second.stderr.splitlines()
                for part in ("another run writes here", socket.gethostname(), f"pid {process.pid}", "since 20"):
                    assert part in line, line
        assert listing(place) == before
        process.kill()
        process.wait()
        last = run("run", "e.yaml", "--plugins", PLUGINS, "-o", "link.h5", "--set", "limits.seconds=0.2", cwd=place)
        assert last.returncode == 1 and "1 of 2 cells are done already" in last.stderr, last.stderr
        assert (Path(place) / "link.h5").is_symlink() and not (Path(place) / "link.cells").exists()
        assert list(frame(Path(place) / "out.h5")["status"]) == ["ok", "timeout"]


def test_a_run_that_is_interrupted_gives_its_lock_back():
    with folder() as place:
        process = hanging_run(place, "-o", "out.h5")
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
        assert run("run", "e.yaml", "--plugins", PLUGINS, "-o", "out.h5", "--only", "raw/*", cwd=place).returncode == 0


def no_locks():
    """In a child: fcntl(F_OFD_SETLK) fails as on a file system without locks."""
    call = {"x86_64": 72, "aarch64": 25}[os.uname().machine]
    load, equal, give = 0x20, 0x15, 0x06
    program = [(load, 0, 0, 0), (equal, 0, 3, call), (load, 0, 0, 24), (equal, 0, 1, 37),
               (give, 0, 0, 0x00050000 | 37), (give, 0, 0, 0x7FFF0000)]  # ENOLCK; allowed
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    filters = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, ctypes.byref(filters), 0, 0) == 0


def test_without_locks_a_run_warns_and_goes_on():
    with folder() as place:
        (Path(place) / "e.yaml").write_text(HANGS)
        result = subprocess.run([KVLAB, "run", "e.yaml", "--plugins", PLUGINS, "-o", "out.h5", "--only", "raw/*"], cwd=place,
                                capture_output=True, text=True, preexec_fn=no_locks, check=False)
        assert result.returncode == 0, result.stderr
        assert "warning: out.cells: this file system has no locks (No locks available)" in result.stderr, result.stderr


main(globals())
