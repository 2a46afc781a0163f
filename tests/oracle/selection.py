"""The selectors: which tokens of each KV head stay.

Positions are an array [sequence, kv head, kept], ascending; budgets do not depend on the data, so
every head keeps the same number. `doubtful` counts heads whose last kept and first dropped score
are so close that f32 rounding alone could swap them.
"""
import math

import numpy as np

from coding import UnknownMethod

# Relative gap of two scores below which an f32 implementation may order them either way.
SCORE_DOUBT = 1e-5


class BudgetTooSmall(Exception):
    pass


def rows_at(x, positions):
    """x [s, h, token, c] at positions [s, h, kept]."""
    return np.take_along_axis(x, positions[..., None], axis=2)


def budget(spec, present):
    tokens = spec.get("tokens")
    if tokens is not None:
        return min(present, int(tokens))
    if spec.get("keep") is None:
        raise UnknownMethod(f"{spec.get('method')} without a budget")
    return min(present, max(1, math.floor(float(spec["keep"]) * present + 0.5)))


def magnitude_scores(spec, layer, positions):
    of = spec.get("of", "both")
    score = np.ones(positions.shape)
    if of in ("both", "keys"):
        score = score * np.linalg.norm(rows_at(layer.keys, positions).astype(np.float64), axis=-1)
    if of in ("both", "values"):
        score = score * np.linalg.norm(rows_at(layer.values, positions).astype(np.float64), axis=-1)
    return -score if spec.get("prefer", "largest") == "smallest" else score


def attention_scores(spec, layer, positions):
    """Mean or max, over observed queries and the group's heads, of the survivors' softmax."""
    count = int(spec.get("observe", 64))
    first = max(0, len(layer.observed_positions) - count)
    queries = layer.observed[:, :, :, first:].astype(np.float64)
    at = layer.observed_positions[first:]
    keys = rows_at(layer.keys, positions).astype(np.float64)
    logits = np.einsum("shgqc,shtc->shgqt", queries, keys, optimize=True) * layer.scale
    hidden = positions[:, :, None, None, :] > at[:, None]
    logits[np.broadcast_to(hidden, logits.shape)] = -np.inf
    top = logits.max(-1, keepdims=True)
    # A query that sees no survivor gives every token nothing.
    weights = np.exp(logits - np.where(np.isfinite(top), top, 0))
    total = weights.sum(-1, keepdims=True)
    shares = weights / np.where(total == 0, 1, total)
    return shares.max((2, 3)) if spec.get("reduce", "mean") == "max" else shares.mean((2, 3))


def scores(spec, layer, positions):
    method = spec.get("method")
    if method == "sliding_window":
        return positions.astype(np.float32)
    if method == "magnitude":
        return magnitude_scores(spec, layer, positions).astype(np.float32)
    if method == "attention_score":
        return attention_scores(spec, layer, positions).astype(np.float32)
    if method == "random":
        # The seeded draw cannot be repeated here; any choice has the same sizes.
        return np.random.default_rng(0).random(positions.shape)
    raise UnknownMethod(f"selector {method!r}")


def count_doubtful(ordered, kept):
    """Heads where the scores on both sides of the cut nearly tie; ordered [s, h, n], descending."""
    if kept == 0 or kept == ordered.shape[-1]:
        return 0
    last, dropped = ordered[..., kept - 1], ordered[..., kept]
    # Zeros tie for certain: tokens that no observed query may see.
    return int(((last - dropped <= SCORE_DOUBT * np.abs(last)) & (last != 0)).sum())


def select_once(spec, layer, positions, sinks, tail):
    present = positions.shape[-1]
    stay = budget(spec, present)
    if stay >= present:
        return positions, 0
    free = stay - sinks - tail
    if free < 0:
        raise BudgetTooSmall(f"a budget of {stay} tokens is below sinks + tail = {sinks + tail}")
    middle = scores(spec, layer, positions)[..., sinks:present - tail]
    order = np.argsort(-middle, axis=-1, kind="stable")  # stable: ties go to the earlier token
    chosen = np.sort(order[..., :free], axis=-1) + sinks
    ends = [np.arange(sinks), np.arange(present - tail, present)]
    first, last = (np.broadcast_to(e, (*positions.shape[:-1], len(e))) for e in ends)
    places = np.concatenate([first, chosen, last], axis=-1)
    doubtful = count_doubtful(np.take_along_axis(middle, order, -1), free)
    return np.take_along_axis(positions, places, -1), doubtful


def clip_ends(cache, present):
    """Sinks and tail clipped to the tokens present; they never overlap."""
    sinks = min(int(cache.get("sinks") or 0), present)
    return sinks, min(int(cache.get("tail") or 0), present - sinks)


def select(specs, cache, layer):
    """Positions that stay after all selectors, and the number of doubtful decisions."""
    shape = layer.keys.shape
    positions = np.broadcast_to(np.arange(shape[2]), shape[:3])
    doubtful = 0
    for spec in specs:
        sinks, tail = clip_ends(cache, positions.shape[-1])
        positions, more = select_once(spec, layer, positions, sinks, tail)
        doubtful += more
    return positions, doubtful


def index_bytes(positions, tokens):
    """Kept positions of the heads that lost tokens: runs of 8 bytes, or 4 bytes per token if not more."""
    kept = positions.shape[-1]
    if kept == tokens or kept == 0:
        return 0
    runs = 1 + (np.diff(positions, axis=-1) != 1).sum(-1)
    return int(np.minimum(8 * runs, 4 * kept).sum())
