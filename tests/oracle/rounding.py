"""Rounding to the storage types: nearest, ties to even, saturating at the largest finite value."""
import numpy as np

ELEMENT_BYTES = {"f32": 4, "f16": 2, "bf16": 2}
F16_MAX = np.float32(65504.0)
BF16_MAX = np.uint32(0x7F7F0000).view(np.float32)


def bf16_to_f32(bits):
    """The float32 values of an array of bfloat16 bits (uint16)."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def round_bf16(x):
    # Saturate first: the carry of the rounding below would turn values above BF16_MAX into infinity.
    x = np.clip(np.asarray(x, np.float32), -BF16_MAX, BF16_MAX)
    bits = np.ascontiguousarray(x).view(np.uint32)
    # Half a unit less one, plus the lowest kept bit: ties go to the even neighbour.
    bits = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (bits & np.uint32(0xFFFF0000)).view(np.float32).reshape(x.shape)


def round_f16(x):
    x = np.clip(np.asarray(x, np.float32), -F16_MAX, F16_MAX)
    return x.astype(np.float16).astype(np.float32)


def round_f32(x):
    return np.asarray(x, np.float32)


ROUNDERS = {"f32": round_f32, "f16": round_f16, "bf16": round_bf16}


def round_to(dtype, x):
    return ROUNDERS[dtype](x)
