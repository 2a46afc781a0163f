"""A trace is a stranger's file: read wrongly in every way, it is refused in one line, and nothing ever crashes."""

import os
import random
import shutil
from pathlib import Path

import h5py
import numpy

from kvlab import TRACE, folder, main, run


def small_trace(path, element="bf16"):
    """A trace by the description of the format, two layers, with what is optional."""
    generator = numpy.random.default_rng(1)
    with h5py.File(path, "w") as file:
        for name, value in {"format": b"kvlab-trace", "model": b"none", "model_license": b"none", "text": b"noise",
                            "rope_style": b"half"}.items():
            file.attrs[name] = numpy.bytes_(value)
        for name, value in {"version": 1, "model_layers": 5, "query_heads": 4, "kv_heads": 2, "head_dim": 8,
                            "prefill_tokens": 20, "rope_dim": 8}.items():
            file.attrs[name] = numpy.int32(value)
        file.attrs["rope_theta"] = 10000.0
        file.attrs["attention_scale"] = 0.35
        file["query_positions"] = numpy.arange(10, 24, dtype="i4")
        file["rope_inv_freq"] = numpy.ones(4)
        for layer in (1, 3):
            group = file.create_group(f"layer_{layer:03d}")
            group.attrs["layer"] = numpy.int32(layer)
            if layer == 3:
                group.attrs["window"] = numpy.int32(6)
            for name, shape in {"keys": (2, 2, 24, 8), "values": (2, 2, 24, 8), "queries": (2, 4, 14, 8)}.items():
                data = generator.standard_normal(shape).astype("f4")
                if element == "bf16":
                    group[name] = (data.view("u4") >> 16).astype("u2")
                    group[name].attrs["element"] = numpy.bytes_(b"bf16")
                else:
                    group[name] = data.astype(element)


def replace(file, name, data):
    attributes = dict(file[name].attrs)
    del file[name]
    file[name] = data
    for key, value in attributes.items():
        file[name].attrs[key] = value


def set_attribute(name, value):
    return lambda file: file.attrs.__setitem__(name, value)


def drop_attribute(name):
    return lambda file: file.attrs.__delitem__(name)


def poison(value):
    def change(file):
        data = file["layer_003/values"][...]
        data[1, 1, 23, 7] = value
        replace(file, "layer_003/values", data)
    return change


CHANGES = {
    "no format": (drop_attribute("format"), "'format' is not 'kvlab-trace'"),
    "wrong format": (set_attribute("format", numpy.bytes_(b"other")), "'format' is not 'kvlab-trace'"),
    "format a number": (set_attribute("format", 5), "is not text"),
    "future version": (set_attribute("version", numpy.int32(2)), "'version' is 2; valid: 1 .. 1"),
    "version a text": (set_attribute("version", numpy.bytes_(b"1")), "'version' of / is not an integer"),
    "version a list": (set_attribute("version", numpy.array([1, 1])), "is not a single value"),
    "no model": (drop_attribute("model"), "no attribute 'model'"),
    "no heads": (set_attribute("kv_heads", numpy.int32(0)), "'kv_heads' is 0; valid: 1"),
    "heads not a multiple": (set_attribute("query_heads", numpy.int32(3)), "not a multiple"),
    "huge head_dim": (set_attribute("head_dim", numpy.int64(1 << 40)), "'head_dim' is"),
    "other head_dim": (set_attribute("head_dim", numpy.int32(9)), "has shape [2, 2, 24, 8], not [2, 2, 24, 9]"),
    "scale NaN": (set_attribute("attention_scale", float("nan")), "'attention_scale' is not above 0"),
    "scale negative": (set_attribute("attention_scale", -1.0), "'attention_scale' is not above 0"),
    "prefill beyond": (set_attribute("prefill_tokens", numpy.int32(25)), "'prefill_tokens' is 25; valid: 1 .. 24"),
    "rope unknown": (set_attribute("rope_style", numpy.bytes_(b"spiral")), "valid: half, interleaved, none"),
    "rope too wide": (set_attribute("rope_dim", numpy.int32(10)), "'rope_dim' is 10"),
    "inv_freq too short": (lambda f: replace(f, "rope_inv_freq", numpy.ones(3)), "has shape [3], not [4]"),
    "no positions": (lambda f: f.__delitem__("query_positions"), "no dataset 'query_positions'"),
    "positions fall": (lambda f: replace(f, "query_positions", numpy.arange(24, 10, -1, dtype="i4")), "do not ascend"),
    "positions beyond": (lambda f: replace(f, "query_positions", numpy.arange(20, 34, dtype="i4")), "go beyond the 24 tokens"),
    "positions real": (lambda f: replace(f, "query_positions", numpy.arange(10.0, 24.0)), "not integers"),
    "no layer": (lambda f: (f.__delitem__("layer_001"), f.__delitem__("layer_003")), "no group layer_NNN"),
    "layer twice": (lambda f: f["layer_003"].attrs.__setitem__("layer", numpy.int32(1)), "the same layer"),
    "layer beyond the model": (lambda f: f["layer_003"].attrs.__setitem__("layer", numpy.int32(5)), "'layer' is 5"),
    "layer no group": (lambda f: (f.__delitem__("layer_003"), f.__setitem__("layer_003", numpy.ones(3))), "is not a group"),
    "no values": (lambda f: f["layer_003"].__delitem__("values"), "no dataset 'values'"),
    "values a group": (lambda f: (f["layer_003"].__delitem__("values"), f["layer_003"].create_group("values")), "is not a dataset"),
    "values flat": (lambda f: replace(f, "layer_003/values", f["layer_003/values"][...].reshape(-1)), "has shape [768]"),
    "keys flat": (lambda f: replace(f, "layer_001/keys", f["layer_001/keys"][...].reshape(-1)), "not [sequence, kv_head"),
    "element missing": (lambda f: f["layer_003/values"].attrs.__delitem__("element"), "neither float32"),
    "element double": (lambda f: replace(f, "layer_003/values", numpy.ones((2, 2, 24, 8))), "neither float32"),
    "mixed elements": (lambda f: replace(f, "layer_003/values", numpy.ones((2, 2, 24, 8), "f4")), "another element type"),
    "NaN": (poison(0x7FC0), "/layer_003/values holds NaN or infinity in sequence 1"),
    "infinity": (poison(0xFF80), "/layer_003/values holds NaN or infinity in sequence 1"),
}


def check(path, *parts):
    result = run("trace", path)
    assert result.returncode == 2, (result.returncode, result.stdout, result.stderr)
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and str(path) in lines[0], result.stderr
    for part in parts:
        assert part in lines[0], (part, lines[0])


def test_every_wrong_trace_is_refused():
    with folder() as place:
        path = Path(place) / "t.h5"
        for name, (change, message) in CHANGES.items():
            small_trace(path)
            with h5py.File(path, "r+") as file:
                change(file)
            print(" ", name)
            check(path, message)


def test_every_element_type_reads():
    with folder() as place:
        for element in ("bf16", "f4", "f2", ">f4", ">f2"):
            path = Path(place) / "t.h5"
            small_trace(path, element)
            result = run("trace", path)
            assert result.returncode == 0, (element, result.stderr)
            assert "layers      1 3 (window 6) of 5" in result.stdout
            experiment = Path(place) / "e.yaml"
            experiment.write_text("kvlab: 1\nname: t\nworkloads: {t: {trace: t.h5}}\npipelines: {raw: {}}\nmeasure: {speed: false}\n")
            assert run("run", experiment, "--fresh", cwd=place).returncode == 0


LIES = {
    "keys nowhere": (lambda f: (f.__delitem__("layer_003/keys"), f["layer_003"].create_dataset("keys", (2, 2, 24, 8), "f4")),
                     "/layer_003/keys has values that the file does not hold"),
    "sequences without end": (lambda f: (f.__delitem__("layer_001/keys"), f["layer_001"].create_dataset(
        "keys", (1 << 31, 2, 24, 8), "f4", chunks=(1, 2, 24, 8))), "/layer_001/keys has values that the file does not hold"),
    "a link to another file": (lambda f: f.__setitem__("layer_004", h5py.ExternalLink("other.h5", "/layer_001")),
                               "/layer_004 is an external link: other files are not read"),
    "a filter": (lambda f: f.create_dataset("token_ids", data=numpy.ones((2, 24), "i4"), chunks=(2, 24), compression="lzf"),
                 "/token_ids uses the filter 32000 (lzf); valid: deflate, shuffle, fletcher32"),
}


def test_what_a_trace_does_not_hold_itself_is_refused():
    with folder() as place:
        path = Path(place) / "t.h5"
        for name, (change, message) in LIES.items():
            small_trace(path)
            with h5py.File(path, "r+") as file:
                change(file)
            print(" ", name)
            check(path, message)


def test_a_file_that_libhdf5_reads_without_end_is_given_up():
    endless = Path(__file__).parent / "data/trace_endless.h5"  # a few damaged bytes: H5Literate never returns
    check(endless, "reading it takes longer than 10 s")


def test_texts_of_a_trace_control_no_terminal():
    with folder() as place:
        path = Path(place) / "t.h5"
        small_trace(path)
        with h5py.File(path, "r+") as file:
            file.attrs["model"] = "\x1b[2Jmodel\ncontent \x9b"
        for _ in range(2):  # checked, and remembered
            result = run("trace", path)
            assert result.returncode == 0 and "\\x1b[2Jmodel\\ncontent \\x9b" in result.stdout, result
            assert not [c for c in result.stdout if c != "\n" and (ord(c) < 32 or 127 <= ord(c) < 160)], result.stdout
        content = run("trace", path).stdout.splitlines()[-1]
        before = path.stat()
        data = path.read_bytes()
        path.write_bytes(data.replace(b"model", b"medel", 1))  # of the same size, and its time set back
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        after = run("trace", path)
        assert after.returncode == 2 or after.stdout.splitlines()[-1] != content, after


def test_a_wrong_choice_of_the_experiment_is_refused():
    with folder() as place:
        experiment = Path(place) / "e.yaml"
        for choice, message in {"layers: [2, 12]": "the trace has no layer 12; valid: 2, 11, 20, 29",
                                "sequences: [2]": "the trace has no sequence 2; valid: 0 .. 1",
                                "sequences: [0, 0]": "names 0 a second time",
                                "layers: []": "is an empty list",
                                "prefill: 1153": "prefill is 1153; the nearest valid value is 1152"}.items():
            experiment.write_text(f"kvlab: 1\nname: t\nworkloads:\n  t:\n    trace: {TRACE}\n    {choice}\npipelines: {{raw: {{}}}}\n")
            result = run("plan", experiment)
            assert result.returncode == 2 and message in result.stderr and f"{experiment}:6:" in result.stderr, result.stderr


def test_damage_never_crashes():
    random.seed(2)
    with folder() as place:
        whole = Path(place) / "whole.h5"
        small_trace(whole)
        data = whole.read_bytes()
        path = Path(place) / "t.h5"
        refused = 0
        for attempt in range(120):
            damaged = bytearray(data)
            if attempt % 4 == 0:
                damaged = damaged[: random.randrange(len(damaged))]
            for _ in range(random.choice((1, 4, 32))):
                if damaged:
                    damaged[random.randrange(min(len(damaged), 8192))] = random.randrange(256)
            path.write_bytes(damaged)
            result = run("trace", path)
            assert result.returncode in (0, 2), (attempt, result.returncode, result.stderr)
            assert len(result.stderr.strip().splitlines()) == (1 if result.returncode else 0), result.stderr
            refused += result.returncode == 2
        assert refused > 60
        shutil.copy(TRACE, path)
        with open(path, "r+b") as file:
            file.truncate(5_000_000)
        check(path)


main(globals())
