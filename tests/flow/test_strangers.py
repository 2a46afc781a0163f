"""Result files and names of strangers: nothing they hold leads out of them, takes memory, or moves a cursor."""

import os
import resource
import signal
import subprocess
from pathlib import Path

import h5py
import numpy

from kvlab import KVLAB, folder, main, run

EXPERIMENT = """kvlab: 1
name: t
workloads: {w: {synthetic: gaussian, tokens: 64, head_dim: 8, kv_heads: 1, query_heads: 1}}
pipelines: {raw: {}, int8: {codec: {method: quantize, bits: 8}}}
measure: {speed: false}
"""
SECRET = "not for the eyes of others"


def result_file(place):
    """A finished result of two rows."""
    (Path(place) / "e.yaml").write_text(EXPERIMENT)
    out = Path(place) / "out.h5"
    assert run("run", Path(place) / "e.yaml", "-o", out).returncode == 0
    return out


def column(cells, name, **how):
    """Puts another dataset in the place of a column."""
    del cells[name]
    return cells.create_dataset(name, **how)


def external_storage(file, place):
    secret = Path(place) / "secret"
    secret.write_text(SECRET * 10)
    column(file["cells"], "reason", shape=(2,), dtype="S40", external=[(str(secret), 0, 80)])


def external_link(file, place):
    with h5py.File(Path(place) / "other.h5", "w") as other:
        other["secret"] = numpy.array([SECRET.encode()] * 2)
    del file["cells/reason"]
    file["cells/reason"] = h5py.ExternalLink(str(Path(place) / "other.h5"), "/secret")


def link_to_external_link(file, place):
    external_link(file, place)
    file["aside"] = h5py.ExternalLink(str(Path(place) / "other.h5"), "/")
    del file["cells/reason"]
    file["cells/reason"] = h5py.SoftLink("/aside/secret")


def virtual(file, place):
    with h5py.File(Path(place) / "other.h5", "w") as other:
        other["secret"] = numpy.array([SECRET.encode()] * 2, dtype="S40")
    layout = h5py.VirtualLayout(shape=(2,), dtype="S40")
    layout[:] = h5py.VirtualSource(str(Path(place) / "other.h5"), "secret", shape=(2,))
    del file["cells/reason"]
    file["cells"].create_virtual_dataset("reason", layout)


def endless_but_stored_once(file, place):
    data = column(file["cells"], "reason", shape=(1 << 27,), dtype="S64", chunks=(1 << 16,), compression="gzip")
    data[: 1 << 16] = b"x"


def many_names_of_one(file, place):
    data = file["cells"].create_dataset("zeros", shape=(1 << 21,), dtype="f8", chunks=(1 << 21,), compression="gzip")
    data[...] = 1
    for i in range(300):
        file[f"cells/zeros{i}"] = file["cells/zeros"]
    for name in list(file["cells"]):
        if not name.startswith("zeros"):
            del file["cells"][name]


# AddressSanitizer ends a process that is given no memory, and takes much itself.
SANITIZED = os.environ["KVLAB_SANITIZE"] != ""
OUT_OF_MEMORY = "reading it ends the process" if SANITIZED else "reading it needs more than"

LIES = {
    "external storage": (external_storage, "/cells/reason has external storage: other files are not read"),
    "external link": (external_link, "/cells/reason is an external link: other files are not read"),
    "soft link": (link_to_external_link, "/aside is an external link: other files are not read"),
    "virtual dataset": (virtual, "/cells/reason is a virtual dataset: other files are not read"),
    "filter": (lambda f, p: column(f["cells"], "bytes", data=numpy.ones(2), chunks=(2,), compression="lzf"),
               "/cells/bytes uses the filter 32000 (lzf); valid: deflate, shuffle, fletcher32"),
    "values nowhere": (lambda f, p: column(f["cells"], "bytes", shape=(1 << 26,), dtype="f8"),
                       "/cells/bytes has values that the file does not hold"),
    "one of many chunks": (endless_but_stored_once, "/cells/reason declares 8589934592 bytes; what the file stores"),
    "many names": (many_names_of_one, OUT_OF_MEMORY),
    "a number for a text": (lambda f, p: column(f["cells"], "pipeline", data=numpy.ones(2)), "column pipeline is of another type"),
    "another number": (lambda f, p: (f["cells"].attrs.create("checksum", "0" * 16), f["cells/bytes"].write_direct(numpy.ones(2))),
                       "cells is damaged: its checksum is another"),
    "no group": (lambda f, p: f.__delitem__("cells"), "there is no group 'cells'"),
    "a column too long": (lambda f, p: column(f["cells"], "bytes", data=numpy.ones(3)), "is not as long as the others"),
}


def test_no_file_leads_out_of_itself_or_takes_what_it_does_not_hold():
    with folder() as place:
        path = result_file(place)
        whole = path.read_bytes()
        for name, (change, message) in LIES.items():
            path.write_bytes(whole)
            with h5py.File(path, "r+") as file:
                del file["cells"].attrs["checksum"]  # else it is what tells
                change(file, place)
            result = run("show", path, "--columns", "reason")
            print(" ", name, result.stderr.strip())
            assert result.returncode == 2 and result.stdout == "", (name, result)
            assert result.stderr.startswith(f"kvlab: {path}: ") and result.stderr.count("\n") == 1, result.stderr
            assert message in result.stderr, (name, result.stderr)
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # KiB, of the largest process
    assert SANITIZED or most < 700_000, most


def test_what_is_compressed_honestly_reads():
    with folder() as place:
        path = result_file(place)
        before = run("show", path, "--csv").stdout
        with h5py.File(path, "r+") as file:
            for name in ("bytes", "key_error"):
                values = file["cells"][name][...]
                column(file["cells"], name, data=values, maxshape=(None,), chunks=(1024,), compression="gzip",
                       shuffle=True, fletcher32=True)
            file["dimension"] = numpy.zeros(1 << 20)  # what nobody reads
            file.create_dataset("empty", shape=(5,), dtype="f4")  # as netCDF makes a dimension without values
        after = run("show", path, "--csv")
        assert after.returncode == 0, after.stderr
        assert sorted(after.stdout.splitlines()[0].split(",")) == sorted(before.splitlines()[0].split(","))


def controls(text):
    return [c for c in text if (ord(c) < 32 and c != "\n") or 127 <= ord(c) < 160 or ord(c) in (0x202E, 0x2066)]


def test_no_text_controls_a_terminal():
    nasty = "\x1b[31mred\nline\t\x07\x9b31m\u202e\x7f"
    seen = "\\x1b[31mred\\nline\\t\\x07\\x9b31m\\u202e\\x7f"
    with folder() as place:
        path = result_file(place)
        with h5py.File(path, "r+") as file:
            del file["cells"].attrs["checksum"]
            file["cells"][nasty] = numpy.ones(2)
            column(file["cells"], "reason", data=[nasty, "a,b"], dtype=h5py.string_dtype())
            column(file["cells"], "pipeline", data=numpy.array([b"\xff\x1b", b"x"]))
        for flags in ([], ["--csv"], ["--columns", "reason," + seen], ["--columns", "reason", "--csv"]):
            result = run("show", path, *flags)
            assert result.returncode == 0 and not controls(result.stdout + result.stderr), (flags, result)
            assert "\\xff\\x1b" in result.stdout or flags[:1] == ["--columns"]
            assert len(result.stdout.splitlines()) == 3, result.stdout
        assert seen in run("show", path, "--columns", "reason," + seen).stdout.splitlines()[0]
        assert run("show", path, "--columns", "reason", "--csv").stdout.splitlines()[2] == '"a,b"'
        for arguments in (["show", path, "--columns", nasty], ["show", f"{place}/{nasty}"], ["trace", f"{place}/{nasty}"],
                          ["describe", nasty], [nasty], ["run", f"{place}/{nasty}"], ["plan", "--" + nasty],
                          ["run", Path(place) / "e.yaml", "--set", f"pipelines.raw.{nasty}=1"]):
            result = run(*arguments)
            assert result.returncode == 2 and not controls(result.stdout + result.stderr), (arguments, result)
            assert result.stderr.count("\n") == 1, result.stderr
        library = Path(place) / "\x1b[31mbroken.so"
        library.write_bytes(b"no library")
        for arguments in (["list"], ["list", "--json"]):
            result = run("--plugins", place, *arguments)
            assert result.returncode == 0 and "[31m" in result.stdout and not controls(result.stdout), result


def test_long_names_are_cut():
    with folder() as place:
        path = Path(place) / "e.yaml"
        name = "n" * 15_000_000
        for text, message in {EXPERIMENT + f"? {name}\n: 1\n": "the experiment has no 'nnnn",
                              EXPERIMENT.replace("raw:", f"? {name} :"): "nnn' is not of the form [A-Za-z0-9_-]+",
                              EXPERIMENT.replace("quantize", name): "there is no codec 'nnnn",
                              EXPERIMENT.replace("64", name): "not an integer; valid: "}.items():
            path.write_text(text)
            result = run("plan", path)
            assert result.returncode == 2 and message in result.stderr and len(result.stderr) < 1000, result.stderr[:2000]
            assert str(path) in result.stderr


def limited(most, *arguments):
    """kvlab where no file can grow beyond `most` bytes, which is how a full disk looks to a writer."""
    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    return subprocess.run([KVLAB, *map(str, arguments)], preexec_fn=limit, restore_signals=False, capture_output=True,
                          text=True, timeout=300, check=False)


def test_a_full_disk_loses_nothing_and_is_not_the_users_mistake():
    with folder() as place:
        experiment = Path(place) / "e.yaml"
        experiment.write_text(EXPERIMENT + "repeats: 100\n")
        out = Path(place) / "out.h5"
        full = limited(200_000, "run", experiment, "-o", out)  # cells fit, the result does not
        assert full.returncode == 1 and f"{out}: cannot be written: " in full.stderr, full
        assert not out.exists() and len(list((Path(place) / "out.cells").glob("*.cell"))) == 200
        assert not list(Path(place).rglob("*.tmp.*"))
        again = run("run", experiment, "-o", out)
        assert again.returncode == 0 and "200 of 200 cells are done already" in again.stderr, again.stderr
        with open("/dev/full", "w", encoding="ascii") as device:
            shown = subprocess.run([KVLAB, "show", str(out)], stdout=device, stderr=subprocess.PIPE, text=True, check=False)
        assert shown.returncode == 1 and "cannot be written" in shown.stderr, shown


def test_a_planned_name_of_a_new_file_is_not_followed():
    """Nothing that stands beside a result is written through."""
    with folder() as place:
        out = result_file(place)
        victim = Path(place) / "victim"
        victim.write_text("mine")
        for pid in range(os.getpid(), os.getpid() + 400):  # names as they were made of the writer's process id
            (Path(place) / f"out.h5.tmp.{pid}").symlink_to(victim)
        assert run("run", Path(place) / "e.yaml", "-o", out).returncode == 0
        assert victim.read_text() == "mine"


main(globals())
