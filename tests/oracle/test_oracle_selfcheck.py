#!/usr/bin/python3
"""The oracle's own functions against numbers known from elsewhere. Exits nonzero on failure."""
from collections import Counter
from types import SimpleNamespace

import numpy as np

import coding
import metrics
import pipeline
import selection
from oracle import agrees
from rounding import BF16_MAX, bf16_to_f32, round_bf16, round_f16


def near(got, want, relative):
    assert abs(got - want) <= relative * abs(want), f"got {got}, expected {want}"


def decode(x, **spec):
    sizes, slack = Counter(), Counter()
    return coding.encode_decode(x, spec, sizes, slack), sizes


def normal(*shape):
    return np.random.default_rng(7).standard_normal(shape).astype(np.float32)


def rounding_saturates_and_ties_to_even():
    f16 = {1 + 2**-11: 1.0, 1 + 3 * 2**-11: 1 + 2**-9, 65519.0: 65504.0, 65520.0: 65504.0, 1e9: 65504.0,
           -1e9: -65504.0, 2.0**-24: 2.0**-24, 2.0**-25: 0.0, 3 * 2.0**-25: 2.0**-23}
    for given, want in f16.items():
        assert round_f16(np.float32(given)) == want, given
    bf16 = {1 + 2**-8: 1.0, 1 + 3 * 2**-8: 1 + 2**-6, 1 + 2**-8 + 2**-20: 1 + 2**-7, 3.4e38: float(BF16_MAX),
            -3.4e38: -float(BF16_MAX), 0.0: 0.0, -2.5: -2.5}
    for given, want in bf16.items():
        assert round_bf16(np.float32(given)) == want, given
    assert float(BF16_MAX) == 2.0**127 * (2 - 2.0**-7)
    assert bf16_to_f32(np.array([0x3FC0, 0xC020], np.uint16)).tolist() == [1.5, -2.5]


def sizes_of_one_token():
    for bits, symmetric, want in ((8, True, 130), (4, False, 68), (3, True, 50), (2, False, 36)):
        _, sizes = decode(normal(1, 1, 1, 128), method="quantize", bits=bits, symmetric=symmetric)
        assert sum(sizes.values()) == want, (bits, symmetric, sizes)
    _, sizes = decode(normal(1, 1, 1, 64), method="quantize", bits=4, group=48, scale_dtype="f32")
    assert sizes == {"payload": 32, "scale": 8}


def sizes_per_channel():
    # 70 tokens in blocks of 32, 32 and 6: 3-bit codes of a channel take 12, 12 and 3 bytes.
    _, sizes = decode(normal(2, 3, 70, 5), method="quantize", bits=3, scales="per_channel", group=32,
                      symmetric=False)
    assert sizes == {"payload": 6 * 5 * 27, "scale": 6 * 5 * 3 * 4}


def quantization_error_of_gaussian_noise():
    x = normal(1, 1, 40000, 32)
    for bits, symmetric, want in ((8, True, 2.86e-5), (4, False, 6.12e-3), (4, True, 9.41e-3), (2, False, 0.1542)):
        for scales in ("per_token", "per_channel"):
            decoded, _ = decode(x, method="quantize", bits=bits, symmetric=symmetric, scales=scales, group=32)
            near(np.square(decoded - x).mean(), want, 0.01)


def zero_scale_decodes_to_the_zero():
    decoded, _ = decode(np.zeros((1, 1, 3, 8), np.float32), method="quantize")
    assert not decoded.any()
    decoded, _ = decode(np.full((1, 1, 3, 8), 1.5, np.float32), method="quantize", symmetric=False)
    assert (decoded == 1.5).all()


def low_rank_is_eckart_young():
    x = normal(1, 2, 512, 64)
    decoded, sizes = decode(x, method="low_rank", rank=20, factor_dtype="f32")
    sigma = np.linalg.svd(x.astype(np.float64), compute_uv=False)
    near(np.square(decoded - x).sum(), np.square(sigma[..., 20:]).sum(), 1e-5)
    assert sizes == {"payload": 2 * 512 * 20 * 4, "basis": 2 * 64 * 20 * 4}


def low_rank_falls_back_to_the_block():
    x = normal(1, 1, 520, 64)
    decoded, sizes = decode(x, method="low_rank", rank=57, factor_dtype="f32")  # 57 * 576 >= 512 * 64
    assert (decoded == x).all() and sizes == {"payload": 520 * 64 * 4, "basis": 0}
    _, sizes = decode(x, method="low_rank", rank=56, factor_dtype="bf16", block=512)
    assert sizes == {"payload": 2 * (512 * 56 + 8 * 64), "basis": 2 * 64 * 56}


def energy_chooses_the_smallest_rank():
    sigma = np.zeros((100, 8), np.float32)
    sigma[range(4), range(4)] = [4, 2, 1, 1]  # sigma squared 16, 4, 1, 1 of 22
    x = sigma[None, None]
    for energy, rank in ((0.7, 1), (0.73, 2), (0.9, 2), (0.92, 3), (0.97, 4)):
        decoded, sizes = decode(x, method="low_rank", energy=energy, factor_dtype="f16", block=512)
        assert sizes == {"index": 2, "payload": 200 * rank, "basis": 16 * rank}, (energy, sizes)
        near(np.square(decoded).sum(), [16, 20, 21, 22][rank - 1], 1e-3)


def layer_of(keys, values, observed, observed_positions, **more):
    return SimpleNamespace(keys=keys, values=values, observed=observed, scale=1.0, window=0,
                           observed_positions=np.array(observed_positions), **more)


def budgets_sinks_and_ties():
    spec = {"method": "magnitude", "of": "keys"}
    assert selection.budget(spec | {"keep": 0.25}, 10) == 3      # floor(2.5 + 0.5)
    assert selection.budget(spec | {"keep": 0.001}, 10) == 1
    assert selection.budget(spec | {"tokens": 99}, 10) == 10
    norms = np.array([1, 5, 2, 5, 5, 1, 9, 1], np.float32).reshape(1, 1, 8, 1)
    layer = layer_of(norms, norms, None, [])
    kept, _ = selection.select([spec | {"tokens": 5}], {"sinks": 1, "tail": 1}, layer)
    assert kept.ravel().tolist() == [0, 1, 3, 6, 7]
    kept, _ = selection.select([spec | {"tokens": 3, "prefer": "smallest"}], {}, layer)
    assert kept.ravel().tolist() == [0, 5, 7]
    assert selection.index_bytes(kept, 8) == 12                   # three runs: 4 bytes per token is less
    assert selection.index_bytes(np.arange(2, 8).reshape(1, 1, 6), 8) == 8
    assert selection.index_bytes(np.arange(8).reshape(1, 1, 8), 8) == 0


def attention_score_is_causal_over_survivors():
    keys = np.array([0, 0, 0, 5], np.float32).reshape(1, 1, 4, 1)
    queries = np.ones((1, 1, 1, 2, 1), np.float32)
    layer = layer_of(keys, keys, queries, [1, 2])
    spec = {"method": "attention_score"}
    got = selection.attention_scores(spec, layer, np.arange(4).reshape(1, 1, 4)).ravel()
    assert np.allclose(got, [5 / 12, 5 / 12, 1 / 6, 0])
    got = selection.attention_scores(spec | {"reduce": "max"}, layer, np.array([[[0, 2, 3]]])).ravel()
    assert np.allclose(got, [1, 0.5, 0])
    got = selection.attention_scores(spec | {"observe": 1}, layer, np.arange(4).reshape(1, 1, 4)).ravel()
    assert np.allclose(got, [1 / 3, 1 / 3, 1 / 3, 0])


def windows_hide_old_tokens():
    values = np.array([1, 2, 4], np.float32).reshape(1, 1, 3, 1)
    layer = layer_of(np.zeros_like(values), values, None, [], judged=np.ones((1, 1, 1, 3, 1), np.float32),
                     judged_positions=np.array([3, 4, 9]))
    layer.window = 3
    positions = np.arange(3).reshape(1, 1, 3)
    assert metrics.attend(layer, layer.keys, values, positions).ravel().tolist() == [3, 4, 0]
    layer.window = 0
    assert np.allclose(metrics.attend(layer, layer.keys, values, positions), 7 / 3)


def errors_and_their_corner_cases():
    exact, other = np.array([[3., 4.], [0., 0.]]), np.array([[3., 0.], [0., 0.]])
    total, cosine, single = metrics.output_errors(exact, other)
    assert (total, cosine, single.tolist()) == (0.8, 0.3, [0.8, 0.0])
    assert metrics.tensor_error(exact, exact) == 0
    assert np.isnan(metrics.tensor_error(exact[:0], exact[:0]))
    assert metrics.pooled(np.arange(5.0)) == [2, 3.8, 4]


def a_whole_cell():
    """int8 keys, raw values, three ends: every part of the bytes by hand."""
    keys = normal(2, 3, 50, 64)
    layer = layer_of(keys, keys, None, [], judged=normal(2, 3, 3, 4, 64), judged_positions=np.arange(50, 54),
                     number=2)
    everything = np.broadcast_to(np.arange(50), (2, 3, 50))
    layer.reference = metrics.attend(layer, keys, keys, everything)
    workload = SimpleNamespace(layers=[layer], element_bytes=2, elements=2 * keys.size)
    parameters = {"cache": {"sinks": 3, "tail": 5}, "codec": {"keys": {"method": "quantize"}},
                  "select": [{"method": "sliding_window", "tokens": 20}]}
    row = pipeline.expect(parameters, workload).row
    want = {"kept_tokens": 20, "elements": 38400, "raw_bytes": 76800, "payload_bytes": 6 * 12 * 64,
            "scale_bytes": 6 * 12 * 2, "index_bytes": 6 * 16, "basis_bytes": 0,
            "uncompressed_bytes": 6 * (8 + 20) * 128}
    assert {name: row[name] for name in want} == want
    assert row["bytes"] == sum(want[part + "_bytes"] for part in pipeline.BYTE_PARTS)
    assert row["value_error"] == 0 and 0 < row["key_error"] < 0.01 < row["output_error"]


def tolerances():
    nan = float("nan")
    assert agrees("bytes", 100.0, 100) and not agrees("bytes", 101.0, 100)
    assert agrees("key_error", 0.1009, 0.1) and not agrees("key_error", 0.102, 0.1)
    assert agrees("key_error", nan, nan) and not agrees("key_error", 0.0, nan)
    assert agrees("output_cosine", 0.9, 0.9) and not agrees("output_cosine", 0.9, 0.99)


if __name__ == "__main__":
    checks = [check for name, check in list(globals().items())
              if callable(check) and getattr(check, "__module__", None) == __name__
              and check.__code__.co_argcount == 0]
    for check in checks:
        check()
    print(f"{len(checks)} checks passed")
