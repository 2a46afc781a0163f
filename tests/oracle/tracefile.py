"""The recorded workload: reading the trace, and the part of it that one experiment uses."""
import h5py
import numpy as np

import metrics
from rounding import bf16_to_f32


class UnusableInput(Exception):
    pass


def read_values(dataset):
    """(float32 array, bytes an element) of keys, values or queries."""
    element = dataset.attrs.get("element", b"")
    element = element.decode() if isinstance(element, bytes) else str(element)
    if dataset.dtype == np.uint16:
        if element != "bf16":
            raise UnusableInput(f"{dataset.name}: uint16 that is not marked as bf16")
        return bf16_to_f32(dataset[:]), 2
    if dataset.dtype in (np.float16, np.float32):
        return dataset[:].astype(np.float32), dataset.dtype.itemsize
    raise UnusableInput(f"{dataset.name}: element type {dataset.dtype}")


class Trace:
    """A whole trace file in memory."""

    def __init__(self, path):
        try:
            with h5py.File(path, "r") as file:
                self._read(file)
        except (OSError, KeyError, ValueError) as error:
            raise UnusableInput(f"{path}: {error}") from error

    def _read(self, file):
        kind = file.attrs["format"]
        if (kind.decode() if isinstance(kind, bytes) else kind) != "kvlab-trace":
            raise UnusableInput(f"{file.filename}: not a kvlab trace")
        self.prefill = int(file.attrs["prefill_tokens"])
        self.scale = float(file.attrs["attention_scale"])
        self.query_positions = file["query_positions"][:]
        self.layers, self.windows = {}, {}
        for name, group in file.items():
            if not name.startswith("layer_"):
                continue
            number = int(group.attrs["layer"])
            (keys, self.element_bytes), (values, _), (queries, _) = (
                read_values(group[part]) for part in ("keys", "values", "queries"))
            self.layers[number] = keys, values, queries
            self.windows[number] = int(group.attrs.get("window", 0))
        if not self.layers:
            raise UnusableInput(f"{file.filename}: no layers")
        self.sequences = len(keys)


class Layer:
    """One layer of a workload: the first P tokens, the queries split by P, the exact outputs.

    Queries are [sequence, kv head, query head of the group, query, channel].
    """

    def __init__(self, trace, number, sequences, prefill):
        keys, values, queries = (part[sequences] for part in trace.layers[number])
        self.number = number
        self.scale = trace.scale
        self.window = trace.windows[number]
        self.keys = np.ascontiguousarray(keys[:, :, :prefill])
        self.values = np.ascontiguousarray(values[:, :, :prefill])
        shape = self.keys.shape
        grouped = queries.reshape(shape[0], shape[1], -1, *queries.shape[2:])
        early = trace.query_positions < prefill
        self.observed, self.judged = grouped[:, :, :, early], grouped[:, :, :, ~early]
        self.observed_positions = trace.query_positions[early]
        self.judged_positions = trace.query_positions[~early]
        positions = np.broadcast_to(np.arange(shape[2]), shape[:3])
        self.reference = metrics.attend(self, self.keys, self.values, positions)


class Workload:
    def __init__(self, trace, layers, sequences, prefill):
        self.prefill = prefill
        self.element_bytes = trace.element_bytes
        self.layers = [Layer(trace, number, sequences, prefill) for number in layers]
        self.observed_queries = len(self.layers[0].observed_positions)

    @property
    def elements(self):
        return 2 * sum(layer.keys.size for layer in self.layers)


class WorkloadCache:
    """Workloads by layers, sequences and prefill, so that references are computed once."""

    def __init__(self, trace):
        self.trace = trace
        self.known = {}

    def get(self, spec):
        trace = self.trace
        layers, sequences, prefill = spec.get("layers"), spec.get("sequences"), spec.get("prefill")
        layers = sorted(trace.layers) if layers is None else layers
        sequences = list(range(trace.sequences)) if sequences is None else sequences
        prefill = trace.prefill if prefill is None else int(prefill)
        missing = [n for n in layers if n not in trace.layers]
        missing += [s for s in sequences if not 0 <= s < trace.sequences]
        if missing:
            raise UnusableInput(f"the trace has no such layers or sequences: {missing}")
        key = tuple(layers), tuple(sequences), prefill
        if key not in self.known:
            self.known[key] = Workload(trace, *map(list, key[:2]), prefill)
        return self.known[key]
