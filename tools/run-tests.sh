#!/bin/bash
# Runs the tests one after another, a line for each, and closes with "N passed, N failed".
#   tools/run-tests.sh [unit|stress|preload|cli|model|procs]...   without arguments all but procs
#   BUILD=dir  TESTS="words a name may contain"  TIMEOUT=seconds per test
#
# A test that cannot run here says so in a line "skip: why" and passes. A test program whose source
# has a line "// run: tiers" is run once per way the runtime can learn of a blocked thread; one with
# "// run: rings" once more without io_uring; one with "// run: engines" once more with the poller's
# other engine. procs is those with "// run: procs", on 1, 2, 4 and 8 Ps and on each tier.
set -u -m # -m gives each test its own process group, so that it can be ended with all it started
cd "$(dirname "$0")/.." || exit 1
export BUILD=${BUILD:-build}
limit=${TIMEOUT:-120}
logs=$BUILD/logs
mkdir -p "$logs"
ulimit -c 0
passed=0 failed=0 group=

trap '[[ -n $group ]] && kill -KILL -- "-$group" 2>/dev/null; exit 130' INT TERM

# Cases passed, failed and skipped: doctest's summary, or the "ok" and "FAIL" lines of a script.
count() {
    awk '/^\[doctest\] test cases:/ { gsub(/\|/, " "); good = $5; bad = $7; skipped = $9 }
         script && /^ok / { good++ }
         script && /^FAIL / { bad++ }
         END { print good + 0, bad + 0, skipped + 0 }' script="$1" "$2"
}

picked() {
    local word
    [[ -z ${TESTS:-} ]] && return 0
    for word in $TESTS; do [[ $1 == *$word* ]] && return 0; done
    return 1
}

# run NAME IS_SCRIPT COMMAND...
run() {
    local name=$1 script=$2 log="$logs/${1//\//.}.log" why=
    local start=$EPOCHREALTIME status good bad skipped
    shift 2
    # SIGQUIT, for a goroutine traceback in the log.
    timeout -s QUIT -k 5 "$limit" "$@" >"$log" 2>&1 </dev/null &
    group=$!
    { wait "$group"; } 2>/dev/null # bash would report the death of a job
    status=$?
    kill -KILL -- "-$group" 2>/dev/null # what it left behind
    group=

    read -r good bad skipped < <(count "$script" "$log")
    if ((status == 124 || status == 137)); then
        why="no end after $limit s"
    elif ((status != 0 && bad == 0)); then
        why="exit status $status"
    elif ((status == 0 && good + bad + skipped == 0)) && ! grep -q '^skip: ' "$log"; then
        why="it tested nothing"
    fi
    if [[ -n $why ]] && ((bad == 0)); then bad=1; fi
    ((passed += good, failed += bad))

    local word=ok ms=$(((${EPOCHREALTIME/[.,]/} - ${start/[.,]/}) / 1000))
    ((bad > 0)) && word=FAIL why=${why:-$bad failed}
    printf '%-4s %-40s %4d cases %4d.%03d s  %s\n' $word "$name" $((good + bad)) \
        $((ms / 1000)) $((ms % 1000)) "$why"
    ((skipped > 0)) && echo "     skip: $skipped test cases"
    grep '^skip: ' "$log" | sort -u | sed 's/^/     /'
    if ((bad > 0)); then
        { grep -A 3 -E 'ERROR|^FAIL |WARNING: |runtime error|panic:' "$log" | head -n 20
          echo '...'
          tail -n 20 "$log"; } | sed 's/^/     | /'
        echo "     all of it: $log"
    fi
}

programs() {
    local source name tier
    for source in tests/"$1"/*.cpp; do
        name=$1/$(basename "$source" .cpp)
        [[ -f $source ]] && picked "$name" || continue
        if grep -q '^// run: tiers' "$source"; then
            for tier in probe understudy sysmon; do
                BATON_ASSIST=$tier run "$name@$tier" 0 "$BUILD/tests/$name"
            done
        else
            run "$name" 0 "$BUILD/tests/$name"
        fi
        if grep -q '^// run: rings' "$source"; then
            BATON_DISABLE=io_uring run "$name@norings" 0 "$BUILD/tests/$name"
        fi
        if grep -q '^// run: engines' "$source"; then
            BATON_POLL=uring run "$name@uring" 0 "$BUILD/tests/$name"
        fi
    done
}

procs() {
    local source name tier procs
    for source in $(grep -l '^// run: procs' tests/unit/*.cpp); do
        name=unit/$(basename "$source" .cpp)
        picked "$name" || continue
        for tier in probe understudy sysmon; do
            for procs in 1 2 4 8; do
                BATON_ASSIST=$tier BATON_MAXPROCS=$procs \
                    run "$name@$tier/$procs" 0 "$BUILD/tests/$name"
            done
        done
    done
}

(($# > 0)) || set -- unit stress preload cli model
for kind in "$@"; do
    case $kind in
    unit | stress | preload) programs "$kind" ;;
    procs) procs ;;
    cli)
        for script in tests/cli/*.sh; do
            name=cli/$(basename "$script" .sh)
            [[ -f $script ]] && picked "$name" && run "$name" 1 bash "$script"
        done
        ;;
    model) picked model && limit=$((limit * 5)) run model 1 bash tests/model/check.sh --quick ;;
    *) echo "run-tests: what is '$kind'?" >&2 && exit 2 ;;
    esac
done

echo "$passed passed, $failed failed"
((failed == 0 && passed > 0))
