"""The codecs: each takes x [..., n, c] (f32) and gives back what would be decoded, and adds up bytes.

Leading axes are sequences and heads; blocks are cut along the token axis, the same in every head.
Sizes go into a Counter with the keys payload, scale, index, basis; `slack` counts what a legitimate
difference in the last float bits could change (see low_rank's energy).
"""
import numpy as np

from rounding import ELEMENT_BYTES, round_to

# An f32 implementation may see a cumulative energy this far (relative to the total) from ours.
ENERGY_DOUBT = 1e-5


class UnknownMethod(Exception):
    pass


def cut(total, size):
    """[first, end) of consecutive runs of `size`; the last may be short."""
    return [(first, min(first + size, total)) for first in range(0, total, size)]


def heads_of(x):
    return int(np.prod(x.shape[:-2]))


def packed_bytes(count, bits):
    return (count * bits + 7) // 8


def quantize_group(x, axis, bits, symmetric, scale_dtype):
    """Quantizes and decodes x with one scale (and zero) for everything along `axis`."""
    if symmetric:
        levels = 2 ** (bits - 1) - 1
        zero = np.float32(0)
        scale = np.abs(x).max(axis=axis, keepdims=True) / np.float32(levels)
        low = -levels
    else:
        levels = 2 ** bits - 1
        zero = round_to(scale_dtype, x.min(axis=axis, keepdims=True))
        span = x.max(axis=axis, keepdims=True) - zero
        scale = np.maximum(np.float32(0), span) / np.float32(levels)
        low = 0
    scale = round_to(scale_dtype, scale)
    divisor = np.where(scale == 0, np.float32(1), scale)
    codes = np.clip(np.rint((x - zero) / divisor), low, levels)
    codes = np.where(scale == 0, np.float32(0), codes)
    return codes * scale + zero


def quantize(x, spec, sizes, slack):
    bits = int(spec.get("bits", 8))
    symmetric = bool(spec.get("symmetric", True))
    scales = spec.get("scales", "per_token")
    group = int(spec.get("group", 0))
    scale_dtype = spec.get("scale_dtype", "f16")
    tokens, channels = x.shape[-2:]
    heads = heads_of(x)
    decoded = np.empty_like(x)
    if scales == "per_token":
        runs = cut(channels, group if 0 < group < channels else channels)
        for first, end in runs:
            part = np.s_[..., first:end]
            decoded[part] = quantize_group(x[part], -1, bits, symmetric, scale_dtype)
        payload = tokens * packed_bytes(channels, bits)
        scale_count = tokens * len(runs)
    elif scales == "per_channel":
        runs = cut(tokens, group or 128)
        for first, end in runs:
            part = np.s_[..., first:end, :]
            decoded[part] = quantize_group(x[part], -2, bits, symmetric, scale_dtype)
        payload = sum(channels * packed_bytes(end - first, bits) for first, end in runs)
        scale_count = channels * len(runs)
    else:
        raise UnknownMethod(f"scales {scales!r}")
    per_scale = ELEMENT_BYTES[scale_dtype] * (1 if symmetric else 2)
    sizes.update(payload=heads * payload, scale=heads * scale_count * per_scale)
    return decoded


def low_rank_sizes(rank, tokens, channels, element):
    """(payload, basis) bytes of a block; A and V, or X itself where they would not be smaller."""
    if rank * (tokens + channels) >= tokens * channels:
        return tokens * channels * element, 0
    return tokens * rank * element, channels * rank * element


def energy_ranks(sigma2, energy):
    """The smallest rank that reaches the energy, for each block, and whether f32 could disagree."""
    total = sigma2.sum(-1, keepdims=True)
    reached = np.cumsum(sigma2, -1)
    enough = reached >= energy * total
    last = sigma2.shape[-1] - 1
    ranks = np.where(enough.any(-1), enough.argmax(-1), last) + 1
    near = np.abs(reached - energy * total) <= ENERGY_DOUBT * total
    # Only the two sums around the decision can move it.
    at = np.take_along_axis(near, ranks[..., None] - 1, -1)[..., 0]
    before = np.take_along_axis(near, np.maximum(ranks - 2, 0)[..., None], -1)[..., 0] & (ranks > 1)
    return ranks, at | before


def low_rank_block(x, spec, sizes, slack):
    energy = float(spec.get("energy", 0) or 0)
    dtype = spec.get("factor_dtype", "bf16")
    element = ELEMENT_BYTES[dtype]
    tokens, channels = x.shape[-2:]
    exact = x.astype(np.float64)
    # The right singular vectors are the eigenvectors of X'X; eigh gives them in ascending order.
    sigma2, basis = np.linalg.eigh(np.swapaxes(exact, -1, -2) @ exact)
    sigma2 = np.maximum(sigma2[..., ::-1], 0)
    basis = basis[..., ::-1]
    limit = min(tokens, channels)
    if energy > 0:
        ranks, doubtful = energy_ranks(sigma2[..., :limit], energy)
        sizes.update(index=2 * heads_of(x))
    else:
        ranks = np.full(x.shape[:-2], min(int(spec.get("rank", 32)), limit))
        doubtful = np.zeros(ranks.shape, bool)
    for rank, doubt in zip(ranks.flat, doubtful.flat):
        payload, base = low_rank_sizes(int(rank), tokens, channels, element)
        sizes.update(payload=payload, basis=base)
        if doubt:
            near = [low_rank_sizes(int(r), tokens, channels, element) for r in (rank - 1, rank + 1)]
            slack.update(payload=max(abs(p - payload) for p, _ in near),
                         basis=max(abs(b - base) for _, b in near))
    used = np.arange(channels) < ranks[..., None, None]
    left = np.where(used, round_to(dtype, exact @ basis), np.float32(0))
    right = round_to(dtype, basis)
    whole = ranks * (tokens + channels) >= tokens * channels
    return np.where(whole[..., None, None], round_to(dtype, x), left @ np.swapaxes(right, -1, -2))


def low_rank(x, spec, sizes, slack):
    decoded = np.empty_like(x)
    for first, end in cut(x.shape[-2], int(spec.get("block", 512))):
        part = np.s_[..., first:end, :]
        decoded[part] = low_rank_block(x[part], spec, sizes, slack)
    return decoded


CODECS = {"quantize": quantize, "low_rank": low_rank}


def encode_decode(x, spec, sizes, slack):
    """What the codec `spec` decodes for x; its bytes are added to `sizes` and `slack`."""
    method = spec.get("method")
    if method not in CODECS:
        raise UnknownMethod(f"codec {method!r}")
    return CODECS[method](x, spec, sizes, slack)
