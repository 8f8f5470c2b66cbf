#!/bin/bash
# clang-tidy over the library, with the checks of .clang-tidy.
set -u
cd "$(dirname "$0")/../.." || exit 1
# shellcheck disable=SC2086 # FLAGS are words
tidy() { clang-tidy --quiet "$1" -- $FLAGS 2>/dev/null; } # stderr only counts what it left out
export -f tidy
find src -name '*.cpp' | sort | xargs -r -P "$(nproc)" -I{} bash -c 'tidy {}'
