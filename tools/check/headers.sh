#!/bin/bash
# Does each header compile alone, with both compilers? Then no source depends on include order.
set -u
cd "$(dirname "$0")/../.." || exit 1

alone() {
    # Through stdin, because a header given as the main file is warned about for its #pragma once.
    # shellcheck disable=SC2086 # FLAGS are words
    echo "#include \"$2\"" | $1 $FLAGS -I. -fsyntax-only -x c++ - || echo "not alone: $1 $2"
}
export -f alone
findings=$(find include src -name '*.hpp' | sort |
    xargs -I{} printf '%s\n' 'g++ {}' 'clang++ {}' |
    xargs -r -P "$(nproc)" -L1 bash -c 'alone "$@"' alone 2>&1)
echo -n "$findings"
[[ -z $findings ]]
