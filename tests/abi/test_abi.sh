#!/bin/bash
# test_abi - goal: what the header promises, the library exports, and nothing else; the header stands
# alone in every language that it names. Method: names from abode.h, from libabode.map and from the
# built libraries are compared as sets; the header is compiled by itself, as C11 and C++17, with
# every warning; its structs are checked for the size field that the ABI rule needs.
set -uo pipefail
tree=${ABODE_TREE:-$(cd "$(dirname "$0")/../.." && pwd)}
build=${ABODE_BUILD:-$tree/build}
header=$tree/include/abode/abode.h
work=$(mktemp -d "${TMPDIR:-/tmp}/abode-abi.XXXXXX")
trap 'rm -rf "$work"' EXIT
passed=0 failed=0 skipped=0
cc=${CC:-gcc}
cxx=${CXX:-g++}

check() {
    local what=$1
    shift
    if "$@" >"$work/output" 2>&1; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAIL $what:"
        cat "$work/output"
    fi
}
skip() {
    skipped=$((skipped + 1))
    echo "SKIP: $1"
}
same() { diff -u "$1" "$2"; }

$cc -E -P -I"$tree/include" "$header" | tr '\n' ' ' | grep -oE '\babode_[a-z0-9_]+ *\(' | tr -d '( ' |
    sort -u >"$work/header"
sed 's|/\*.*\*/||; /^\/\*/,/\*\//d' "$tree/runtime/libabode.map" | grep -oE '^ +abode_[a-z0-9_]+;' |
    tr -d ' ;' | sort >"$work/map"
check "functions of abode.h are those of libabode.map" same "$work/header" "$work/map"

so=$(echo "$build"/libabode.so.[0-9]*)
nm -D --defined-only "$so" | awk '$2 == "T" {sub(/@.*/, "", $3); print $3}' | sort >"$work/exported"
check "the shared library exports the map" same "$work/map" "$work/exported"
check "each symbol has a version" sh -c "! nm -D --defined-only '$so' | grep ' T ' | grep -v '@@ABODE_'"
major=$(awk '/define ABODE_VERSION_MAJOR/ {print $3}' "$header")
check "soname" sh -c "readelf -d '$so' | grep -q 'SONAME.*\[libabode.so.$major\]'"
check "no variables are exported" sh -c "! nm -D --defined-only '$so' | grep -E ' [BDR] '"
nm -g --defined-only "$build/libabode.a" 2>/dev/null | awk 'NF == 3 {print $3}' |
    grep -vE '^(ab_|abode_|__odr_asan)' >"$work/strangers"
check "global names of libabode.a start with ab_ or abode_" sh -c "cat '$work/strangers'; ! [ -s '$work/strangers' ]"

echo '#include <abode/abode.h>
int main(void) { struct abode_config config; abode_config_init(&config); return 0; }' >"$work/alone.c"
cp "$work/alone.c" "$work/alone.cc"
check "abode.h alone, C11" $cc -std=c11 -pedantic -Wall -Wextra -Wstrict-prototypes -Wshadow -Werror \
    -I"$tree/include" -fsyntax-only "$work/alone.c"
if command -v "$cxx" >/dev/null; then
    check "abode.h alone, C++17" "$cxx" -std=c++17 -pedantic -Wall -Wextra -Wold-style-cast -Wshadow \
        -Werror -I"$tree/include" -fsyntax-only "$work/alone.cc"
else
    skip "no C++ compiler"
fi
echo '#include <abode/abode.h>
#include <abode/abode.h>
int main(void) { return (int)abode_version(); }' >"$work/twice.c"
check "included twice, a program links the shared library" $cc ${ABODE_SANITIZE:+-fsanitize=$ABODE_SANITIZE} \
    -I"$tree/include" "$work/twice.c" -o "$work/twice" "$so"
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
