#!/bin/bash
# Are the sources as clang-format leaves them? With --fix they are made so. The version is that of
# Debian 12 (14): others differ in details.
set -u -o pipefail
cd "$(dirname "$0")/../.." || exit 1
sources() { find src include tests tools bpf -name '*.[ch]' -o -name '*.[ch]pp'; }

if [[ ${1:-} == --fix ]]; then
    sources | xargs -r clang-format -i
else
    sources | xargs -r clang-format --dry-run --Werror 2>&1 |
        sed -n 's/^\([^: ]*\):[0-9:]\+ error: .*/\1: `make format` would change it/p' | uniq
fi
