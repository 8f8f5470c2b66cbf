#!/bin/bash
# Checks the models of who owns a P (ownership.pml), a mutex's bias (mutex_bias.pml), where a
# RWMutex counts its readers (rwmutex.pml) and who is woken for a G (wakep.pml) with spin: that they
# hold, and that they fail when any of their rules is dropped.
#
#   check.sh [--quick | --full]
#
#   --quick   under 90 s: smaller models, every rule of the first one dropped (make test)
#             without an option: under 8 min and 4 GB (make model)
#   --full    wider and longer, about half an hour
#   BUILD     where to build, default build/model
#
# One line per check, `ok  WHAT (N states)` or `FAIL WHAT`; the spin output of a failed one stays in
# BUILD/WHAT, and `spin -t -p -g` there with the -D options of its file `defines` replays it.
set -u

here=$(cd "$(dirname "$0")" && pwd)
build=${BUILD:-$here/../../build/model}
mode=${1:-default}
case $mode in
default | --quick | --full) ;;
*) sed -n '2,13s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
for tool in spin gcc; do
    command -v $tool >/dev/null && continue
    echo "check.sh: no $tool here: install the package $tool" >&2
    exit 1
done
mkdir -p "$build" && build=$(cd "$build" && pwd) || exit 1
opt=-O2 abreast=1 # each may need what memory there is
[ $mode = --quick ] && opt=-O0 abreast=$(nproc) # small: the compiler would take longer than spin
: >"$build/report"

# A configuration: threads, goroutines, syscalls, blocks, waits, handoffs (see ownership.pml).
config() { echo "-DNM=$1 -DNG=$2 -DNSYS=$3 -DNBLOCK=$4 -DNWAIT=$5 -DNHANDOFF=$6"; }
small=$(config 3 3 1 1 2 0)
noprobe="$(config 3 3 1 0 2 0) -DNOPROBE"
sleepers="$(config 3 3 0 1 2 0) -DNOPROBE -DSLEEPERS"
takers="$(config 4 3 0 1 1 0) -DNOPROBE -DSLEEPERS"

model=ownership # or mutex_bias, rwmutex, wakep

# search NAME DEFINES CFLAGS [PAN OPTION...]: leaves the output in $build/NAME/out
search() {
    local dir=$build/$1 defines=$2 cflags=$3
    shift 3
    rm -rf "$dir" && mkdir -p "$dir" && cp "$here"/*.pml "$dir" && cd "$dir" || exit 1
    echo "$defines" >defines
    : >out
    spin -a $defines "$model.pml" >build.out 2>&1 &&
        gcc -w -DMEMLIM=3500 $cflags -o pan pan.c >>build.out 2>&1 || return
    ${limit:+timeout -s INT $limit} ./pan -m2000000 "$@" >out 2>&1
    rm -f pan pan.[bchmpt]
}

states() { sed -n 's/^ *\([0-9]*\) states, stored.*/\1/p' "$build/$1/out"; }
found_none() {
    grep -q 'errors: 0$' "$build/$1/out" && ! grep -q 'search depth too small' "$build/$1/out"
}
complete() { found_none "$1" && ! grep -q 'Search not completed' "$build/$1/out"; }
found_one() { grep -q 'errors: [1-9]' "$build/$1/out"; }

report() { # report TEST NAME WHAT [MORE]
    if $1 "$2"; then
        echo "ok  $3 ($(states "$2") states${4:-})"
        rm -rf "${build:?}/$2"
    else
        echo "FAIL $3"
    fi | tee -a "$build/report"
}

turn() { # until another check may begin; each is a job, as many abreast as there may be
    while (($(jobs -rp | wc -l) >= abreast)); do wait -n; done
}

holds() { # holds NAME DEFINES WHAT: every state; no assertion fails, no G is left lying
    turn
    {
        search "$1" "$2" "$opt -DSAFETY -DNOCLAIM"
        report complete "$1" "$3"
    } &
}

lives() { # lives CLAIM DEFINES WHAT: every fair run
    turn
    {
        search "live-$1" "$2 -DNPREEMPT=1" "$opt -DNFAIR=2" -a -f -N "$1"
        report complete "live-$1" "$3"
    } &
}

samples() { # samples SEED SECONDS DEFINES WHAT: as many states as the time allows, in random order
    local limit=$2
    turn
    {
        search "sample-$1" "$3" "$opt -DSAFETY -DNOCLAIM -DBITSTATE -DT_RAND -DP_RAND" -w32 -RS"$1"
        report found_none "sample-$1" "$4, a part" \
            ", hash factor $(sed -n 's/^hash factor: \([0-9.]*\).*/\1/p' "$build/sample-$1/out")"
    } &
}

fails() { # fails RULE DEFINES: without it spin finds an error
    turn
    {
        search "$1" "$2 -D$1" "-O0 -DSAFETY -DNOCLAIM"
        report found_one "$1" "fails with $1"
    } &
}

starves() { # starves RULE DEFINES: without it some fair run never ends
    turn
    {
        search "$1" "$2 -DNPREEMPT=1 -D$1" "-O0 -DNFAIR=2" -a -f -N finishes
        report found_one "$1" "fails with $1"
    } &
}

case $mode in
--quick)
    holds safety "$small" "safety, 3 threads, 3 Gs"
    holds handoff "$(config 3 3 0 1 2 1)" "safety, with handoffp"
    holds prompt "$small -DPROMPT" "safety, sysmon leaves blocked Ps alone"
    holds takers "$(config 4 3 2 0 1 0)" "safety, 4 threads, 2 syscalls"
    holds noprobe "$noprobe" "safety, no probe"
    holds sleepers "$sleepers" "safety, no probe, Ps of sleepers"
    lives finishes "$(config 3 2 1 1 2 0)" "every G finishes"
    ;;
*)
    holds safety "$(config 3 3 1 2 2 0)" "safety, 3 threads, 3 Gs, 2 blocks"
    holds four "$(config 4 3 1 1 3 0)" "safety, 4 threads, 3 Gs"
    holds syscalls "$(config 3 3 2 1 2 0)" "safety, 3 threads, 3 Gs, 2 syscalls"
    holds takers "$(config 4 3 2 0 3 0)" "safety, 4 threads, 2 syscalls"
    holds handoff "$(config 3 3 1 1 2 1)" "safety, with handoffp"
    holds prompt "$small -DPROMPT" "safety, sysmon leaves blocked Ps alone"
    holds noprobe "$(config 3 3 2 0 2 1) -DNOPROBE" "safety, no probe"
    holds sleepers "$(config 3 3 1 1 2 0) -DNOPROBE -DSLEEPERS" "safety, no probe, Ps of sleepers"
    holds claims "$takers" "safety, no probe, Ps of sleepers, 4 threads"
    lives finishes "$(config 3 2 1 1 2 0)" "every G finishes"
    lives taken1 "$(config 3 2 1 1 2 0)" "blocked P 1 with work is taken or resumed"
    lives taken2 "$(config 3 2 1 1 2 0)" "blocked P 2 with work is taken or resumed"
    samples 1 30 "$(config 4 4 2 2 3 1)" "safety, 4 threads, 4 Gs, 2 syscalls, 2 blocks, handoffp"
    ;;
esac
if [ $mode = --full ]; then
    holds both "$(config 3 3 2 2 2 0)" "safety, 3 threads, 3 Gs, 2 syscalls, 2 blocks"
    holds promptly "$(config 3 3 1 2 2 0) -DPROMPT" "safety, 2 blocks, sysmon the same"
    lives finishes "$(config 3 3 1 1 2 0)" "every G finishes, 3 Gs"
    lives finishes "$(config 3 2 1 2 2 0)" "every G finishes, 2 blocks"
    for seed in 2 3 4 5; do
        samples $seed 200 "$(config 4 4 2 3 3 1)" "safety, 4 threads, 4 Gs, 3 blocks, order $seed"
    done
fi

# Every rule of the model, dropped. NO_MIND_REMOTE alone harms nobody but the takers themselves:
# each overwrites the other's id and both fail, for ever. Some matter only without a probe, where
# there is more than the owner's own sequence.
rules() { (cd "$here" && grep -oh 'NO_[A-Z_]*[A-Z]' "$@" | sort -u); }
for rule in $(rules ownership.pml rules.pml); do
    case $rule in
    NO_CLAIM_ID) fails $rule "$takers" ;;
    NO_ASLEEP | NO_CLAIM_FIRST | NO_STATE | NO_STATE_LAST | NO_CAS_CLAIMED | NO_CAS_BACK | \
        NO_TAKE_BACK) fails $rule "$sleepers" ;;
    NO_TAKER_ID) fails $rule "$(config 4 3 2 0 1 0)" ;;
    NO_MIND_HERE | NO_CPU_HERE | NO_MEMBARRIER_EXIT | NO_CAS_EXIT) fails $rule "$noprobe" ;;
    NO_RECHECK_HANDOFF) fails $rule "$(config 3 3 0 0 2 1)" ;;
    NO_MIND_REMOTE) starves $rule "$(config 3 2 1 1 2 0)" ;;
    *) fails $rule "$small" ;;
    esac
done

model=mutex_bias
if [ $mode = --quick ]; then
    holds bias "-DNT=2 -DTIMES=3" "a mutex excludes, 2 threads, 5 locks"
else
    holds bias "-DNT=3 -DTIMES=2" "a mutex excludes, 3 threads, 4 locks"
    holds bias2 "-DNT=2 -DTIMES=5" "a mutex excludes, 2 threads, 9 locks"
    for rule in $(rules mutex_bias.pml); do
        case $rule in
        NO_CPU_LATER) fails $rule "-DNT=2 -DTIMES=3" ;;
        *) fails $rule "-DNT=3 -DTIMES=2" ;;
        esac
    done
fi

model=rwmutex
if [ $mode = --quick ]; then
    holds readers "-DBIASES=1 -DSLOTS=1" "a writer finds all readers, 2 readers, 4 reads"
else
    holds readers "-DBIASES=1 -DSLOTS=1 -DWRITES=3" "a writer finds all readers, 4 reads, 3 writes"
    holds readers2 "-DBIASES=1 -DREADS=1 -DNW=2" "a writer finds all readers, 2 writers"
    holds readers3 "-DBIASES=1 -DREADS=1 -DNR=3" "a writer finds all readers, 3 readers"
    for rule in $(rules rwmutex.pml); do
        case $rule in
        NO_ELSEWHERE | NO_SAY_DRAINING) fails $rule "-DBIASES=1 -DSLOTS=1" ;;
        *) fails $rule "-DWRITES=3" ;;
        esac
    done
fi

model=wakep
understudy="-DTURNS=1 -DUNDERSTUDY"
theft="-DTURNS=4 -DTHEFT -DNIDLE=2 -DELSEWHERE=0"
if [ $mode = --quick ]; then
    holds wakes "-DTURNS=2 -DELSEWHERE=0" "no G is forgotten, 2 turns"
    holds wakes2 "$understudy -DELSEWHERE=0" "no G is forgotten, an understudy"
else
    holds wakes "-DTURNS=3 -DELSEWHERE=2" "no G is forgotten, 3 turns, 2 other Ms"
    holds wakes2 "$understudy" "no G is forgotten, an understudy"
    holds wakes3 "-DTURNS=2 -DNIDLE=2" "no G is forgotten, 2 idle Ps"
    holds wakes4 "-DTURNS=1 -DNIDLE=2 -DNM=3" "no G is forgotten, 2 idle Ps, 3 other Ms"
    holds wakes5 "$theft" "no G is forgotten, one that works steals"
    for rule in $(rules wakep.pml); do
        case $rule in
        NO_THEFT_WAKE) fails $rule "$theft" ;;
        NO_GIVEN) fails $rule "-DTURNS=2 -DNIDLE=2" ;;
        NO_NEED_VAIN | NO_SYSMON) fails $rule "$understudy" ;;
        *) fails $rule "-DTURNS=3" ;;
        esac
    done
fi

wait
failed=$(grep -c '^FAIL ' "$build/report")
echo "$(grep -c '^ok ' "$build/report") passed, $failed failed"
((failed == 0))
