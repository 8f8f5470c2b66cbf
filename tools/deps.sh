#!/bin/bash
# Installs the Debian 12 packages that one purpose needs, if any is missing.
#   tools/deps.sh build|test|bench|demo|check
#   tools/deps.sh --missing PURPOSE             only prints the names, on one line
set -u

build="make binutils g++ clang llvm bpftool pkg-config libbpf-dev libdw-dev libelf-dev zlib1g-dev
       liburing-dev libhttp-parser-dev doctest-dev nlohmann-json3-dev"
test="$build spin procps python3 libcap2-bin libssl-dev openssl libjemalloc2 libtcmalloc-minimal4
      postgresql libpq-dev redis-server libhiredis-dev libcurl4-openssl-dev libsqlite3-dev
      libzstd-dev"
bench="$build wrk libboost-fiber-dev libboost-context-dev fio procps python3"
demo="$build wrk procps python3 libcap2-bin"
check="$test $bench clang-format clang-tidy"

report=no
if [[ ${1:-} == --missing ]]; then
    report=yes
    shift
fi
case ${1:-} in
build | test | bench | demo | check) wanted=${!1} ;;
*) sed -n '2,4s/^# \?//p' "$0" >&2 && exit 2 ;;
esac

# Elsewhere than on Debian nobody can tell from here; the compiler will.
command -v dpkg-query >/dev/null || exit 0
# shellcheck disable=SC2086 # the lists are words
missing=$(comm -23 <(printf '%s\n' $wanted | sort -u) \
    <(dpkg-query -W -f='${db:Status-Status} ${Package}\n' $wanted 2>/dev/null |
        sed -n 's/^installed //p' | sort -u) | xargs)

if [[ $report == yes ]]; then
    echo "$missing"
    exit 0
fi
[[ -z $missing ]] && exit 0

if ((EUID == 0)); then
    echo "installing for $1: $missing"
    export DEBIAN_FRONTEND=noninteractive
    apt="apt-get -qq -o DPkg::Lock::Timeout=300"
    # shellcheck disable=SC2086
    $apt update >/dev/null && $apt install -y --no-install-recommends $missing >/dev/null && exit 0
fi
echo "deps: could not install; as root: apt-get install $missing" >&2
exit 1
