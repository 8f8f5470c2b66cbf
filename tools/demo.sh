#!/bin/bash
# The tour: the example HTTP server under three loads, and what one sees of it from outside.
#   tools/demo.sh          BUILD=dir  SECONDS_EACH=5 per load  BATON_ASSIST=probe|understudy|sysmon
set -u
cd "$(dirname "$0")/.." || exit 1
build=${BUILD:-build}
each=${SECONDS_EACH:-5}
PATH=$PATH:/usr/sbin
work=$(mktemp -d)
server= load=

finish() {
    local pid
    for pid in $load $server; do kill "$pid" 2>/dev/null; done
    [[ -n $server ]] && wait "$server" 2>/dev/null
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

die() {
    echo "demo: $*" >&2
    exit 1
}

[[ -x $build/examples/httpd ]] || die "no $build/examples/httpd: run make first"
command -v wrk >/dev/null || die "wrk is missing; as root: tools/deps.sh demo"

"$build/examples/httpd" --stats-json >"$work/out" 2>"$work/err" &
server=$!
for _ in {1..100}; do
    address=$(sed -n '1s/^listening on //p' "$work/out")
    [[ -n $address ]] && break
    kill -0 "$server" 2>/dev/null || break
    sleep 0.05
done
[[ -n $address ]] || die "the server did not start: $(cat "$work/err")"

# One request without a tool of its own.
get() {
    exec 3<>"/dev/tcp/${address%:*}/${address##*:}" || return 1
    printf 'GET %s HTTP/1.1\r\nConnection: close\r\n\r\n' "$1" >&3
    cat <&3
    exec 3>&-
}
stat_of() { awk -v name="$2" '$1 == name { print $2 }' "$1"; }

# The maps of the probe tier, read by another process while the server is under load.
inspect() {
    local pins=/sys/fs/bpf/baton/$server
    echo
    echo 'While every 10th request blocked:'
    if [[ $(stat_of "$work/before" assist) != probe ]]; then
        echo "No maps to look at: the tier in force is $(stat_of "$work/before" assist)."
        sed 's/^/    /' "$work/err"
    elif [[ ! -e $pins/m ]]; then
        echo "No maps to look at: nothing is pinned at $pins (is bpffs mounted?)."
    elif ! command -v bpftool >/dev/null; then
        echo "No maps to look at: bpftool is missing."
    else
        local map
        for map in m p; do
            echo "bpftool map dump pinned $pins/$map   (its first rows in use)"
            bpftool -j map dump pinned "$pins/$map" 2>"$work/bpftool" | python3 -c "$show" $map ||
                sed 's/^/    /' "$work/bpftool"
        done
    fi
}
# One line for each record in use.
show='
import json, sys
wanted = {"m": ["tid", "state", "p", "cpu", "goid", "blocks", "sysno"],
          "p": ["word", "runq", "syscalltick", "blocks", "handoffs"]}[sys.argv[1]]
def value(row):
    row = row.get("formatted", row)["value"]
    return row if "value" not in row else row["value"]
def text(v):
    if not isinstance(v, dict):
        return str(v)
    return "{" + " ".join(f"{k}={text(x)}" for k, x in v.items()) + "}"
def used(v):
    if sys.argv[1] == "m":
        return v["tid"] and v["state"] not in ("M_DEAD", 0)
    return v["syscalltick"] or v["handoffs"]
rows = [(row.get("formatted", row)["key"], value(row)) for row in json.load(sys.stdin)]
rows = [(key, v) for key, v in rows if used(v)]
for key, v in rows[:12]:
    print(f"    {key}: " + "  ".join(f"{k} {text(v[k])}" for k in wanted if k in v))
if len(rows) > 12:
    print(f"    and {len(rows) - 12} more")
'

# phase TITLE PATH: 64 connections ask for "/" and each tenth time for PATH, while one connection
# of another wrk asks for "/" alone: its percentiles tell what the blocking ones cost the others.
phase() {
    local probe_row load_row
    get /stats >"$work/before"
    wrk -t1 -c64 -d"${each}s" -s tools/examples/mix.lua "http://$address" -- ${2:+"$2"} \
        >"$work/load" 2>&1 &
    load=$!
    wrk -t1 -c1 -d"${each}s" -s tools/examples/mix.lua "http://$address" >"$work/probe" 2>&1 &
    load="$load $!"
    if [[ ${3:-} == inspect ]]; then
        sleep "$(((each + 1) / 2))"
        inspect >"$work/inspection"
    fi
    # shellcheck disable=SC2086 # two process ids
    wait $load
    load=
    get /stats >"$work/after"
    load_row=$(grep '^row ' "$work/load") || die "wrk failed: $(cat "$work/load")"
    probe_row=$(grep '^row ' "$work/probe") || die "wrk failed: $(cat "$work/probe")"
    # shellcheck disable=SC2086 # rows are words
    printf '%-22s %10s %8s %8s %10s %9s %9s %8s %7s\n' "$1" \
        "$(set -- $load_row && echo "$2")" \
        "$(set -- $probe_row && echo "$3")" "$(set -- $probe_row && echo "$4")" \
        $(($(stat_of "$work/after" handoffs) - $(stat_of "$work/before" handoffs))) \
        "$(latency handoff_p50_ns)" "$(latency handoff_p99_ns)" \
        "$(stat_of "$work/after" threads_peak)" "$(set -- $load_row && echo "$5")"
}
# In us, or "-" where the tier has no samples.
latency() {
    awk -v name="$1" '$1 == "handoff_samples" { samples = $2 } $1 == name { ns = $2 }
        END { if (samples) printf "%.1f", ns / 1000; else print "-" }' "$work/after"
}

get /stats >"$work/before"
echo "$address, assist tier: $(stat_of "$work/before" assist), $(nproc) CPUs, $(uname -r);" \
    "wrk -t1 -c64 for $each s each"
echo 'p50 and p99: of "/" alone, in us. block to next goroutine: since the start, in us.'
echo
printf '%-22s %10s %8s %8s %10s %19s %8s %7s\n' '' '' '' '' '' 'block to next' '' ''
printf '%-22s %10s %8s %8s %10s %9s %9s %8s %7s\n' load requests/s p50 p99 handoffs p50 p99 \
    threads errors
phase 'all "/"' ''
phase '10th blocks, untold' '/nap?us=2000' inspect
phase 'every 10th reads disk' '/file'
cat "$work/inspection"

echo
kill -TERM "$server"
wait "$server"
status=$?
server=
echo "SIGTERM: exit status $status, and as the last line:"
sed '1d;s/^/    /' "$work/out"
exit $status
