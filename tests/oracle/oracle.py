#!/usr/bin/python3
"""Recomputes the rows of a kvlab result file from its definitions, and says where they differ.

    oracle.py RESULT.h5 --trace FILE.h5...

Exit code 0: every value agrees; 1: some do not, or no row could be compared; 2: unusable input.
"""
import argparse
import json
import math
import posixpath
import sys

import h5py
import numpy as np

import pipeline
from coding import UnknownMethod
from selection import BudgetTooSmall
from tracefile import Trace, UnusableInput, WorkloadCache

EXACT = 1e-12           # sizes and what is derived from them
RELATIVE = 0.01         # errors: other orders of summation, other eigenvectors, near ties
ABSOLUTE = 1e-5         # and where the error itself is tiny, as for raw
TEXT_COLUMNS = ("id", "pipeline", "status", "parameters")
NUMBER_COLUMNS = pipeline.SIZE_COLUMNS + pipeline.ERROR_COLUMNS


def read_table(file, group, text, numbers):
    """The named columns as a list of rows."""
    columns = {}
    for name in (*text, *numbers):
        try:
            data = file[group][name]
            columns[name] = data.asstr()[:] if name in text else data[:].astype(np.float64)
        except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
            raise UnusableInput(f"column {group}/{name}: {error}") from error
    if len({len(column) for column in columns.values()}) > 1:
        raise UnusableInput(f"the columns of {group} differ in length")
    return [dict(zip(columns, values)) for values in zip(*columns.values())]


def read_result(path):
    """(rows of `cells`, {id: {layer: row of `layers`}})"""
    try:
        with h5py.File(path, "r") as file:
            kind = file.attrs.get("format", "")
            if (kind.decode() if isinstance(kind, bytes) else kind) != "kvlab-results":
                raise UnusableInput(f"{path}: not a kvlab result file")
            cells = read_table(file, "cells", TEXT_COLUMNS, NUMBER_COLUMNS)
            rows = read_table(file, "layers", ("id",), ("layer", *pipeline.LAYER_COLUMNS))
    except OSError as error:
        raise UnusableInput(f"{path}: {error}") from error
    layers = {}
    for row in rows:
        layers.setdefault(row["id"], {})[int(row["layer"])] = row
    return cells, layers


def on_trace(cells, trace_path):
    """[(row, parameters)] of the rows whose workload is a trace of this file name."""
    wanted = posixpath.basename(trace_path)
    found = []
    for row in cells:
        try:
            parameters = json.loads(row["parameters"])
            if posixpath.basename(parameters["workload"].get("trace", "")) == wanted:
                found.append((row, parameters))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UnusableInput(f"parameters of row {row['id']}: {error!r}") from error
    return found


def slack_of(column, expected):
    """By how much near ties may legitimately move a size."""
    slack = expected.slack
    if column.endswith("_bytes"):
        return slack[column[:-len("_bytes")]]
    total = sum(slack.values())
    if column == "bytes":
        return total
    if column == "bits_per_element":
        return 8 * total / expected.row["elements"]
    if column == "compression_ratio":
        return expected.row[column] * total / max(1, expected.row["bytes"] - total)
    return 0


def agrees(column, got, want, slack=0):
    if math.isnan(got) or math.isnan(want):
        return math.isnan(got) and math.isnan(want)
    if math.isinf(got) or math.isinf(want):
        return got == want
    if column in pipeline.SIZE_COLUMNS:
        return abs(got - want) <= EXACT * abs(want) + slack
    if column == "output_cosine":
        # 1 % of the angle, about: near 1 a percent of the cosine itself would accept anything.
        return abs(got - want) <= max(ABSOLUTE, 2 * RELATIVE * (1 - want))
    return abs(got - want) <= max(ABSOLUTE, RELATIVE * abs(want))


class Comparison:
    """Counts, and prints what differs."""

    def __init__(self):
        self.rows = self.values = self.mismatches = self.near_ties = 0

    def report(self, row, column, got, want):
        self.mismatches += 1
        print(f"{row['id']} {row['pipeline']} {row['parameters']} {column}: got {got}, expected {want}")

    def compare(self, row, column, got, want, label=None, slack=0):
        self.values += 1
        if not agrees(column, got, want, slack):
            self.report(row, label or column, repr(float(got)), repr(float(want)))

    def check_row(self, row, parameters, workloads, layers):
        try:
            workload = workloads.get(parameters["workload"])
            status = "unsupported" if pipeline.cannot_run(parameters, workload) else "ok"
            if row["status"] != status:
                self.report(row, "status", row["status"], status)
            if row["status"] != "ok" or status != "ok":
                return
            expected = pipeline.expect(parameters, workload)
        except (UnknownMethod, BudgetTooSmall, UnusableInput) as error:
            self.report(row, "parameters", row["status"], f"a refusal: {error}")
            return
        self.rows += 1
        self.near_ties += any(expected.slack.values())
        for column, want in expected.row.items():
            self.compare(row, column, row[column], want, slack=slack_of(column, expected))
        self.check_layers(row, layers, expected)

    def check_layers(self, row, layers, expected):
        if not expected.layers:
            return
        if set(layers) != set(expected.layers):
            self.report(row, "layers", sorted(layers), sorted(expected.layers))
        for number in set(layers) & set(expected.layers):
            for column, want in expected.layers[number].items():
                label = f"layer {number} {column}"
                self.compare(row, column, layers[number][column], want, label)


def main():
    parser = argparse.ArgumentParser(description="Checks a kvlab result file against the definitions.")
    parser.add_argument("result")
    parser.add_argument("--trace", required=True, nargs="+", help="the traces that the rows were computed from")
    arguments = parser.parse_args()
    comparison = Comparison()
    try:
        cells, layers = read_result(arguments.result)
        for trace in arguments.trace:
            workloads = WorkloadCache(Trace(trace))
            for row, parameters in on_trace(cells, trace):
                comparison.check_row(row, parameters, workloads, layers.get(row["id"], {}))
    except UnusableInput as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{comparison.rows} rows and {comparison.values} values compared, "
          f"{comparison.mismatches} mismatches; {comparison.near_ties} rows with near ties, "
          "their sizes compared within what a tie can move")
    return 1 if comparison.mismatches or not comparison.rows else 0


if __name__ == "__main__":
    sys.exit(main())
