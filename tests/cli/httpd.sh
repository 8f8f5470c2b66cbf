#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The example server, on one processor: what each route answers, and that one request's block is
# not another's.
set -u
. "$(dirname "$0")/../support/cli.sh"
program=${BUILD:-build}/examples/httpd
work=$(mktemp -d)
: >"$work/out"
trap 'kill "$server" 2>/dev/null; rm -rf "$work"' EXIT
BATON_MAXPROCS=1 "$program" --stats-json >"$work/out" 2>"$work/err" &
server=$!
await_address "$work/out"

# What comes back for the bytes of $1, on one connection.
talk() {
    (exec 3<>"/dev/tcp/${address%:*}/${address##*:}" && printf "$1" >&3 && timeout 20 cat <&3) |
        tr -d '\r'
}
get() { talk "GET $1 HTTP/1.1\r\nConnection: close\r\n\r\n"; }
status_of() { sed -n '1s,^HTTP/1.1 ,,p'; }
# answers PATH STATUS LAST_LINE
answers() {
    get "$1" >"$work/answer"
    [[ $(status_of <"$work/answer") == "$2" && $(tail -n 1 "$work/answer") == "$3" ]]
}
bad_us() {
    local query
    for query in '' '?us=' '?us=x' '?us=-1' '?us=1x' '?us=10000001' '?ms=1'; do
        answers "$1$query" "400 Bad Request" "us: 0 to 10000000" || return 1
    done
}
# While one request blocks the thread, the only processor answers another. The first is left behind:
# its wait is long for the sake of machines that have much else to do.
goes_on() {
    get "$1?us=5000000" >"$work/slow" &
    local slow=$! start=$EPOCHREALTIME
    sleep 0.1
    answers / "200 OK" "Hello, World!" && kill $slow 2>/dev/null && return
    echo "answered between $start and $EPOCHREALTIME: $(cat "$work/answer" "$work/slow")"
    return 1
}
reads_file() { answers /file "200 OK" read && grep -qx 'X-Bytes: 65536' "$work/answer"; }
stats() {
    get /stats >"$work/answer"
    [[ $(status_of <"$work/answer") == "200 OK" ]] &&
        grep -Eqx 'assist (probe|understudy|sysmon)' "$work/answer" &&
        grep -Eqx 'handoffs [1-9][0-9]*' "$work/answer" && # goes_on had them
        grep -Eqx 'handoff_p99_ns [0-9]+' "$work/answer" &&
        grep -Eq '^feature rseq (yes|no)' "$work/answer"
}
long_url() { answers "/$(printf 'x%.0s' {1..80})" "414 URI Too Long" "too long"; }
# One line, as bash writes each by itself and the server hangs up after the first.
no_http() { [[ $(talk 'hello\n' | status_of) == "400 Bad Request" ]]; }
# Two requests at once; the second ends the connection. HEAD has no body.
pipelined() {
    talk 'GET / HTTP/1.1\r\n\r\nHEAD / HTTP/1.1\r\nConnection: close\r\n\r\n' >"$work/answer"
    [[ $(grep -ac '200 OK' "$work/answer") == 2 && $(grep -ac World "$work/answer") == 1 ]]
}
ends() { kill -TERM "$server" && wait "$server"; }
json() {
    sed -n '$p' "$work/out" | python3 -c '
import json, sys
stats = json.load(sys.stdin)
sys.exit(not (stats["assist"] and stats["handoffs"] > 0 and stats["threads"] > 0))'
}
usage() { "$program" --port 80 2>/dev/null; [[ $? == 2 ]]; }

check "/" answers / "200 OK" "Hello, World!"
check "/block" answers "/block?us=1000" "200 OK" slept
check "/block beside others" goes_on /block
check "/block with a bad us" bad_us /block
check "/nap" answers "/nap?us=1000" "200 OK" slept
if get /stats | grep -Eq '^assist probe|^feature sleepers yes'; then
    check "/nap beside others" goes_on /nap
else
    echo "skip: /nap beside others: no probe, and /proc does not tell who sleeps"
fi
check "/nap with a bad us" bad_us /nap
check "/file" reads_file
check "/stats" stats
check "a route that is none" answers /nowhere "404 Not Found" "not found"
check "a URL that is too long" long_url
check "what is no HTTP" no_http
check "two requests at once" pipelined
check "SIGTERM ends it" ends
check "--stats-json" json
check "a wrong option" usage
