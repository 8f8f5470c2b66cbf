#!/bin/bash
# Does libbaton.so export what the public headers promise? The examples use nothing but those, so
# each has to link with it. And it exports nothing that is not ours, and the same whichever compiler
# built it. They differ: for clang++ a definition has no visibility that the namespace around its
# declaration had by an attribute, for g++ a friend has none at all.
set -u
cd "$(dirname "$0")/../.." || exit 1
status=0
for object in "$BUILD"/obj/tools/examples/*.o; do
    [[ -f $object ]] || continue
    libs=(-lbaton -lhttp_parser)
    case ${object##*/} in # the libraries that they are about
    tlsecho.o | tlsproxy.o) libs+=(-lssl -lcrypto) ;;
    pgpool.o) libs+=(-lpq) ;;
    rediscache.o) libs+=(-lhiredis) ;;
    curlfetch.o) libs+=(-lcurl) ;;
    esac
    g++ -o /dev/null "$object" -L"$BUILD" "${libs[@]}" -pthread || status=1
done
foreign=$(nm -DC --defined-only "$BUILD/libbaton.so" | cut -d' ' -f3- |
    grep -vE 'baton|(^|[ *&])std::|operator (new|delete)' | head)
[[ -z $foreign ]] || { echo "not ours, yet exported: $foreign" && status=1; }
# The strong ones: which inline functions there are depends on what was inlined.
defined() { nm -DC --defined-only "$1/libbaton.so" | sed -n 's/^[0-9a-f]* [TBDR] //p' | sort; }
differ=$(diff <(defined "$BUILD") <(defined "$BUILD/clang"))
[[ -z $differ ]] || { echo "exported by one compiler (< g++, > clang++): $differ" && status=1; }
exit $status
