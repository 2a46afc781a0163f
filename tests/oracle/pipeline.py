"""What one cell of the result file should say, from its parameters and the trace."""
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

import metrics
from coding import encode_decode
from selection import clip_ends, index_bytes, rows_at, select

BYTE_PARTS = ("payload", "scale", "index", "basis", "uncompressed")
LAYER_COLUMNS = ("key_error", "value_error", "output_error", "output_cosine")
POOLED_COLUMNS = ("output_error_median", "output_error_p95", "output_error_max")
ERROR_COLUMNS = LAYER_COLUMNS + POOLED_COLUMNS
SIZE_COLUMNS = ("kept_tokens", "elements", "raw_bytes", "bytes",
                *(f"{part}_bytes" for part in BYTE_PARTS), "compression_ratio", "bits_per_element")
# What a seeded draw, which nobody else can repeat, leaves certain: no positions, no errors.
CERTAIN_WHEN_RANDOM = ("kept_tokens", "elements", "raw_bytes", "payload_bytes", "scale_bytes",
                       "basis_bytes", "uncompressed_bytes")


@dataclass
class Expected:
    row: dict                                   # column: value
    layers: dict                                # layer: {column: value}
    slack: Counter = field(default_factory=Counter)  # bytes by which a part may differ


def codec_specs(parameters):
    """(keys' codec, values' codec); None stays raw."""
    codec = parameters.get("codec") or {}
    if "method" in codec:
        return codec, codec
    return codec.get("keys") or None, codec.get("values") or None


def select_specs(parameters):
    return parameters.get("select") or []


def uses(parameters, selector):
    return any(spec.get("method") == selector for spec in select_specs(parameters))


def cannot_run(parameters, workload):
    """attention_score without an observed query is `unsupported`."""
    return uses(parameters, "attention_score") and workload.observed_queries == 0


def code_side(exact, spec, ends, element, sizes, slack):
    """Keys or values as decoded: sinks and tail raw, what lies between through the codec."""
    sinks, tail = ends
    kept = exact.shape[2]
    raw_token = exact.shape[0] * exact.shape[1] * exact.shape[3] * element
    if spec is None:
        sizes.update(uncompressed=kept * raw_token)
        return exact
    sizes.update(uncompressed=(sinks + tail) * raw_token)
    decoded = exact.copy()
    if kept > sinks + tail:
        middle = np.s_[:, :, sinks:kept - tail]
        decoded[middle] = encode_decode(exact[middle], spec, sizes, slack)
    return decoded


def run_layer(parameters, layer, element, sizes, slack):
    """(positions, exact and decoded keys, exact and decoded values) of one layer."""
    cache = parameters.get("cache") or {}
    positions, doubtful = select(select_specs(parameters), cache, layer)
    sizes.update(index=index_bytes(positions, layer.keys.shape[2]))
    slack.update(index=16 * doubtful)  # one token swapped for another moves at most two runs
    ends = clip_ends(cache, positions.shape[-1])
    coded = [positions]
    for exact, spec in zip((layer.keys, layer.values), codec_specs(parameters)):
        exact = rows_at(exact, positions) if positions.shape[-1] < exact.shape[2] else exact
        coded += [exact, code_side(exact, spec, ends, element, sizes, slack)]
    return coded


def size_row(workload, kept, sizes):
    total = sum(sizes[part] for part in BYTE_PARTS)
    elements = workload.elements
    raw = elements * workload.element_bytes
    row = {f"{part}_bytes": sizes[part] for part in BYTE_PARTS}
    row.update(kept_tokens=float(np.mean(kept)), elements=elements, raw_bytes=raw, bytes=total,
               compression_ratio=raw / total if total else float("nan"),
               bits_per_element=8 * total / elements)
    return row


def expect(parameters, workload):
    """The expected columns of a cell; errors are left out where a random selector took part."""
    judged = not uses(parameters, "random")
    sizes, slack, kept, layers, vectors = Counter(), Counter(), [], {}, []
    for layer in workload.layers:
        positions, keys, coded_keys, values, coded_values = run_layer(
            parameters, layer, workload.element_bytes, sizes, slack)
        kept.append(positions.shape[-1])
        if not judged:
            continue
        outputs = metrics.attend(layer, coded_keys, coded_values, positions)
        error, cosine, single = metrics.output_errors(layer.reference, outputs)
        layers[layer.number] = dict(zip(LAYER_COLUMNS, (
            metrics.tensor_error(keys, coded_keys), metrics.tensor_error(values, coded_values),
            error, cosine)))
        vectors.append(single)
    row = size_row(workload, kept, sizes)
    if not judged:
        return Expected({name: row[name] for name in certain_columns(parameters)}, {}, slack)
    row.update({name: float(np.mean([layer[name] for layer in layers.values()]))
                for name in LAYER_COLUMNS})
    row.update(zip(POOLED_COLUMNS, metrics.pooled(np.concatenate(vectors))))
    return Expected(row, layers, slack)


def certain_columns(parameters):
    """Columns that hold whatever tokens a random selector drew."""
    specs = [spec for spec in codec_specs(parameters) if spec]
    if any(spec.get("method") == "low_rank" and spec.get("energy") for spec in specs):
        # The rank, and with it both sizes, follows from the tokens drawn.
        return [c for c in CERTAIN_WHEN_RANDOM if c not in ("payload_bytes", "basis_bytes")]
    return CERTAIN_WHEN_RANDOM
