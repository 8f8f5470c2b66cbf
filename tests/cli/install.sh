#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# make install, and then the README's first program as its readers build it: by pkg-config.
set -u
cd "$(dirname "$0")/../.." || exit 1
. tests/support/cli.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PKG_CONFIG_SYSROOT_DIR=$work PKG_CONFIG_PATH=$work/opt/baton/lib/pkgconfig
lib=$work/opt/baton/lib
cxx=${CXX:-g++}
version=$(sed -n 's/^VERSION := //p' Makefile)

installs() {
    make -s BUILD="${BUILD:-build}" DESTDIR="$work" PREFIX=/opt/baton install >"$work/log" 2>&1 ||
        { cat "$work/log" && return 1; }
}
# Every public header, and nothing that only our own sources may include.
headers() { diff <(ls include/baton) <(ls "$work/opt/baton/include/baton"); }
# The first block of code there; one compilation for both ways to link it.
compiles() {
    awk '/^```/ { if (inside) exit; inside = /cpp$/; next } inside' README.md >"$work/hello.cpp"
    # shellcheck disable=SC2046
    $cxx -std=c++20 -c -o "$work/hello.o" "$work/hello.cpp" $(pkg-config --cflags baton)
}
# shellcheck disable=SC2046
links_shared() { $cxx -o "$work/shared" "$work/hello.o" $(pkg-config --libs baton); }
# Ours alone: what it needs is not in every distribution as an archive.
# shellcheck disable=SC2046
links_static() {
    $cxx -o "$work/static" "$work/hello.o" \
        $(pkg-config --static --libs baton | sed 's/-lbaton/-l:libbaton.a/')
}
needs() { readelf -d "$work/$1" | grep -q 'NEEDED.*\[libbaton.so.0\]'; }
needs_none() { [[ -x $work/$1 ]] && ! needs "$1"; }
prints() {
    [[ $(LD_LIBRARY_PATH=$lib timeout 20 "$work/$1" 2>/dev/null | sort -n | xargs) == "1 4 9 16" ]]
}
# ld.so goes on without what is not there.
hooked() {
    [[ -x $lib/libbaton_preload.so ]] &&
        (export LD_PRELOAD=$lib/libbaton_preload.so && prints shared)
}
has_version() {
    [[ $(pkg-config --modversion baton) == "$version" && -f $lib/libbaton.so.$version ]]
}

check "make install" installs
check "the headers" headers
check "the version" has_version
check "the README's program compiles" compiles
check "it links with the shared library" links_shared
check "it needs that" needs shared
check "it runs" prints shared
check "it links with the archive" links_static
check "it does not need the shared library" needs_none static
check "it runs so, too" prints static
check "with the hooks, too" hooked
