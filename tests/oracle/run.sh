#!/usr/bin/env bash
# run.sh PYTHON ONLY: runs the oracle's experiment, the cells that match ONLY, and lets the independent program judge.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
"$KVLAB" run "$here/oracle.yaml" --only "$2" -o "$out/oracle.h5" >"$out/table" 2>"$out/log" || { tail -5 "$out/log"; exit 1; }
"$1" "$here/oracle.py" "$out/oracle.h5" --trace "$here"/../../configs/traces/*.h5
