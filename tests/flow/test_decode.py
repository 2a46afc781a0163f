"""`decode: true`: tokens beyond the prefill are appended one by one, queries attend at their own positions."""

import os

from kvlab import PLUGINS, TRACE, folder, frame, main, run

EXPERIMENT = f"""kvlab: 1
name: decode
workloads:
  recorded: {{trace: {TRACE}, layers: [2], sequences: [0], prefill: 1024, decode: true}}
  noise: {{synthetic: gaussian, batch: 2, layers: 2, kv_heads: 2, query_heads: 4, head_dim: 32, tokens: 400, prefill: 300, decode: true}}
pipelines:
  raw: {{}}
  int8: {{codec: {{method: quantize}}}}
  window: {{cache: {{sinks: 4}}, select: [{{method: sliding_window, tokens: 100}}], codec: {{method: quantize}}}}
  magnitude: {{select: [{{method: magnitude, keep: 0.5}}]}}
  present: {{select: [{{method: keydiff, keep: 0.5}}]}}
  scored: {{select: [{{method: attention_score, keep: 0.5}}]}}
measure: {{min_samples: 3, max_seconds: 0.05}}
"""


def measured(text, exit_code=0):
    """The tables cells, samples and rungs of an experiment named decode."""
    with folder() as name:
        path = f"{name}/decode.yaml"
        with open(path, "w") as file:
            file.write(text)
        result = run("run", path, "--plugins", PLUGINS, cwd=name)
        assert result.returncode == exit_code, result.stderr
        return [frame(f"{name}/results/runs/decode.h5", group=group) for group in ("cells", "samples", "rungs")]


def test_decoding_is_measured_token_by_token():
    cells, samples, rungs = measured(EXPERIMENT)
    assert rungs.empty
    cells = cells.set_index(["pipeline", "workload"])
    raw, int8 = cells.loc[("raw", "noise")], cells.loc[("int8", "noise")]
    assert raw.threads == len(os.sched_getaffinity(0))  # one per core, unless the file says otherwise
    assert (raw.tokens, raw.decoded_tokens, raw.elements) == (300, 100, 2 * 2 * 2 * 2 * 400 * 32)
    assert raw.bytes == raw.raw_bytes == raw.elements * 2 and raw.output_error < 1e-5
    # 300 tokens are blocks of 128, 128 and 44, the 100 that follow stay raw.
    assert int8.bytes == 2 * 2 * 2 * 2 * (300 * (32 + 2) + 100 * 64)
    assert int8.peak_cache_bytes == int8.bytes and 1e-3 < int8.output_error < 3e-2
    for row in (raw, int8):
        assert 0 < row.append_seconds <= row.append_seconds_p99 <= row.append_seconds_max
        assert row.append_seconds < row.step_seconds <= row.step_seconds_p99 <= row.step_seconds_max
        assert row.append_seconds_samples == 100
        assert len(samples[(samples.id == row.id) & (samples.metric == "step")]) == 100
    recorded = cells.loc[("int8", "recorded")]
    assert recorded.decoded_tokens == 128 and 0 < recorded.output_error < 0.02
    # A window moves in blocks of 128 tokens, and 100 were appended to it; kept scores are counted.
    window = cells.loc[("window", "noise")]
    assert window.status == "ok" and window.kept_tokens == 200
    magnitude = cells.loc[("magnitude", "noise")]
    assert magnitude.kept_tokens == 150 + 100 and magnitude.index_bytes >= 8 * 250 * 4
    # Its scores are those of queries, and none are observed while decoding: it chooses in the prefill, the others stay.
    scored = cells.loc[("scored", "noise")]
    assert scored.status == "ok" and scored.kept_tokens == 150 + 100
    assert cells.loc[("scored", "recorded")].kept_tokens == 512 + 128
    # Scores of all present tokens: kept nowhere, so positions alone are index bytes.
    present = cells.loc[("present", "noise")]
    assert present.status == "ok" and present.kept_tokens == 150 + 100
    assert present.index_bytes <= 8 * 250 * 4 < magnitude.index_bytes


ADAPTIVE = """kvlab: 1
name: decode
workloads:
  noise: {synthetic: gaussian, batch: 2, layers: 2, kv_heads: 2, query_heads: 4, head_dim: 32, tokens: 1600, prefill: 300, decode: true}
pipelines:
  at_once: {cache: {sinks: 4, tail: 28}, codec: {method: quantize, bits: 4}}
  later: {cache: {sinks: 4, tail: 28, async: true}, codec: {method: quantize, bits: 4}}
  grows: {adaptive: [{above_tokens: 0, codec: {method: quantize}}, {above_tokens: 1024, codec: {method: quantize, bits: 4}, recode: {sweep: [false, true]}}]}
  fits: {cache: {async: true}, adaptive: {bytes_per_sequence: 320KiB, ladder: [{method: quantize}, {codec: {method: quantize, bits: 4}}]}}
  does_not: {adaptive: {bytes_per_sequence: 64KiB, ladder: [{method: quantize}]}}
measure: {min_samples: 3, max_seconds: 0.05, threads: 1}
"""


def test_tables_show_steps_plan_and_progress_name_what_varies():
    with folder() as name:
        path = f"{name}/decode.yaml"
        text = EXPERIMENT.replace("{codec: {method: quantize}}", "{codec: {method: quantize, bits: {sweep: [8, 4]}}}")
        with open(path, "w") as file:
            file.write(text.replace("name: decode\n", "name: decode\nrepeats: 2\n"))
        planned = run("plan", path, "--plugins", PLUGINS, "--only", "int8/noise/*").stdout.splitlines()
        assert len(planned) == 4 and "int8/noise/cpu codec.bits=4 repeat=1  about" in planned[3], planned
        result = run("run", path, "--plugins", PLUGINS, "--only", "int8/noise/*", cwd=name)
        assert "int8/noise/cpu codec.bits=8 repeat=0: ok" in result.stderr, result.stderr
        header, first, second = result.stdout.splitlines()
        assert "step_seconds" in header and "append_seconds_mean" in header and "repeat" not in header, header
        assert "±" in first and "±" in second, result.stdout


def test_background_and_ladders():
    cells, _, rungs = measured(ADAPTIVE, exit_code=1)  # one cell does not fit
    cells = cells.set_index("pipeline")
    at_once, later = cells.loc["at_once"], cells.loc["later"]
    assert at_once.threads == 1
    # The background thread has finished what is counted and judged at the end; queries before it saw more exact rows.
    for column in ("bytes", "payload_bytes", "scale_bytes", "uncompressed_bytes", "key_error", "value_error"):
        assert at_once[column] == later[column], column
    assert later.output_error <= at_once.output_error * 1.01
    assert not set(rungs.id) & {at_once.id, later.id}

    def held(row, role):
        mine = rungs[(rungs.id == row.id) & (rungs.role == role)].set_index("rung").tokens
        assert mine.sum() == row.kept_tokens == 1600
        return list(mine)

    # Of 1300 tokens appended to blocks of 128, 128 and 44: 8 bits until 1024 tokens are passed, 4 bits behind.
    kept, recoded = (cells.loc["grows"][cells.loc["grows"]["adaptive.1.recode"] == value].iloc[0] for value in (0, 1))
    assert held(kept, "keys") == held(kept, "values") == [20, 300 + 5 * 128, 5 * 128]
    assert held(recoded, "keys") == held(recoded, "values") == [20, 0, 1580]
    assert recoded.bytes < kept.bytes and recoded.key_error > kept.key_error
    fits = cells.loc["fits"]
    assert fits.bytes <= 2 * 320 * 1024, fits.bytes
    raw, first, second = held(fits, "keys")
    assert first == 0 < second, (raw, first, second)
    codecs = set(rungs[(rungs.id == fits.id) & (rungs.rung == 1)].codec)
    assert len(codecs) == 1 and '"bits":4' in codecs.pop()
    refused = cells.loc["does_not"]
    assert refused.status == "failed" and "bytes_per_sequence is 32768" in refused.reason, refused.reason


def test_decode_without_later_tokens_is_refused():
    with folder() as name:
        path = f"{name}/x.yaml"
        with open(path, "w") as file:
            file.write("kvlab: 1\nname: x\nworkloads:\n  n: {synthetic: gaussian, tokens: 64, decode: true}\npipelines: {raw: {}}\n")
        result = run("run", path, cwd=name)
    assert result.returncode == 2 and "x.yaml:4:" in result.stderr, result.stderr
    assert "decode needs tokens beyond the prefill" in result.stderr, result.stderr


main(globals())
