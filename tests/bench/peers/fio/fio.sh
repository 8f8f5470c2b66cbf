#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# fio's side of the benchmark `file`: `fio file key=value...` prints `figure=value` lines.
set -u
if [[ ${1:-} == version ]]; then
    echo "version=$(fio --version)"
    exit
fi
for word in "${@:2}"; do declare "$word"; done
terse=$(fio --name=file --filename="$file" --readonly --rw=randread --bs=4k --norandommap \
    --ioengine=io_uring --iodepth=64 --direct=$((1 - cached)) --invalidate=0 --time_based \
    --runtime="${ms}ms" --output-format=terse --terse-version=3) || exit 1
# 8: reads per second; 6: KiB read; 88, 89: user and system time, in percent; then percentiles.
awk -F';' -v ms="$ms" '{
    for (i = 1; i <= NF; i++) {
        if (p50 == "" && sub(/^50\.000000%=/, "", $i)) p50 = $i
        if (p99 == "" && sub(/^99\.000000%=/, "", $i)) p99 = $i
    }
    user = $88; system_ = $89
    sub(/%/, "", user); sub(/%/, "", system_)
    printf "iops=%d\np50_us=%g\np99_us=%g\nthreads=1\n", $8, p50, p99
    printf "cpu_us_each=%g\n", (user + system_) / 100 * $9 * 1000 / ($6 / 4)
}' <<<"$terse"
