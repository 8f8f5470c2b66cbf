#!/bin/bash
# `make check` runs this after both compilers have built everything: one line per check, and the
# findings of those that fail. BUILD and FLAGS (the compiler's) come from the Makefile.
set -u
cd "$(dirname "$0")/../.." || exit 1
failed=0
for check in format.sh layers.py rules.py hooks.py headers.sh exports.sh tidy.sh; do
    if findings=$("tools/check/$check" 2>&1); then
        echo "ok   $check"
    else
        echo "FAIL $check"
        failed=1
    fi
    [[ -n $findings ]] && sed 's/^/     /' <<<"$findings"
done
exit $failed
