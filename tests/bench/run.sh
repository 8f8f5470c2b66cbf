#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Every benchmark, one after the other: results to BUILD/bench/results.jsonl, ratios to the screen.
#   BUILD=dir   where the programs are (default: build)
#   QUICK=1     short runs
#   BENCH="..." only these
# A benchmark that fails is named at the end, and makes the exit status 1; the others still run.
set -u
cd "$(dirname "$0")/../.." || exit 1
bin=${BUILD:-build}/bench
results=$bin/results.jsonl
failed=()
all=()

names=${BENCH:-$(basename -s .cpp tests/bench/*.cpp | grep -vx ratios)}
for name in $names; do
    if [[ -x $bin/$name ]]; then
        all+=("$name")
    else
        echo "$name: $bin/$name is not built" >&2
        failed+=("$name")
    fi
done

: >"$results" || exit 1
for name in "${all[@]}"; do
    echo "$name..." >&2
    "$bin/$name" --json ${QUICK:+--quick} >>"$results" || failed+=("$name")
done
"$bin/ratios" "$results" || failed+=(ratios)

if ((${#failed[@]})); then
    echo "failed: ${failed[*]}" >&2
    exit 1
fi
