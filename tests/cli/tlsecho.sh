#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# TLS over baton's connections: with OpenSSL's own client, and with 200 of the example's.
set -u
. "$(dirname "$0")/../support/cli.sh"
program=${BUILD:-build}/examples/tlsecho
if [[ ! -x $program ]]; then
    echo "skip: $program is not built: no libssl-dev"
    exit 0
fi
out=$(mktemp)
trap 'kill "$server" 2>/dev/null; rm -f "$out"' EXIT
"$program" --listen 127.0.0.1:0 >"$out" &
server=$!
await_address "$out"

own_client() {
    # s_client ends at once when its input does: the answer is to be there by then.
    { echo "a line" && sleep 1; } |
        timeout 20 openssl s_client -quiet -no_ign_eof -connect "$address" 2>/dev/null |
        grep -qx "a line"
}
many() { timeout 60 "$program" --connect "$address" --clients 200; }

if command -v openssl >/dev/null; then
    check "openssl s_client gets its line back" own_client
else
    echo "skip: no openssl program"
fi
check "200 clients at once" many
check "the server is alive" kill -0 "$server"
