#!/usr/bin/env bash
# Goal: a stranger can build a host with nothing but what `make install` puts down, and it works.
# Method: install into a temporary prefix, build small_host.c there through pkg-config, against the shared
# and against the static library, run both on a new store, then once more on the store that is there:
# the names are taken, which the host says and ends.
set -euo pipefail
cd "$ABODE_TREE"
if [ -n "${ABODE_SANITIZE:-}" ]; then
    echo "SKIP: the installed library is tested in the plain build"
    exit 77
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/abode-host.XXXXXX")
trap 'rm -rf "$work"' EXIT
passed=0 failed=0
expect() {
    if "${@:2}"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED: $1"
    fi
}

# BUILD as it was spelt: dependency files name objects by it
build=${ABODE_BUILD#"$PWD/"}
make --no-print-directory install CC="${CC:-gcc}" BUILD="$build" PREFIX="$work/usr" >"$work/log" 2>&1 ||
    { cat "$work/log" && exit 1; }
export PKG_CONFIG_PATH=$work/usr/lib/pkgconfig${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}
version=$(awk '/define ABODE_VERSION_(MAJOR|MINOR|PATCH)/ {v = v "." $3} END {print substr(v, 2)}' \
    include/abode/abode.h)
expect 'version of abode.pc' [ "$(pkg-config --modversion abode)" = "$version" ]

# outside the tree: nothing of it may be needed
cp tests/host/small_host.c "$work/host.c"
cd "$work"
flags='-std=c11 -Wall -Wextra -Werror -D_DEFAULT_SOURCE'
# shellcheck disable=SC2046,SC2086 # flags are words
expect 'build with the shared library' \
    "${CC:-gcc}" $flags host.c -o host-shared $(pkg-config --cflags --libs abode) \
    -Wl,-rpath,"$work/usr/lib"
# shellcheck disable=SC2046,SC2086
# libabode alone is static: not all of what it needs is installed as an archive everywhere
expect 'build with the static library' \
    "${CC:-gcc}" $flags host.c -o host-static $(pkg-config --cflags abode) \
    -L"$work/usr/lib" -Wl,-Bstatic -labode -Wl,-Bdynamic \
    $(pkg-config --libs $(pkg-config --print-requires-private abode)) \
    $(pkg-config --static --libs-only-other abode) -lm

# no grep -q: with pipefail an ldd that is not read to its end fails
loads_shared() { [[ $(ldd "$1") == *libabode.so*"$work"* ]]; }
expect 'the shared one loads the installed library' loads_shared ./host-shared
loads_none() { ! loads_shared "$1"; }
expect 'the static one does not load a libabode' loads_none ./host-static

for kind in shared static; do
    mkdir "store-$kind"
    expect "run with the $kind library" sh -c "./host-$kind store-$kind >out-$kind 2>err-$kind"
    cat "out-$kind" "err-$kind"
    expect "$kind: every byte is right" grep -q '^4 talks of 300 tokens, 0 wrong bytes$' "out-$kind"
    expect "$kind: placement is told" grep -q 'bytes stored' "out-$kind"
    expect "$kind: the second run is refused" sh -c "! ./host-$kind store-$kind >/dev/null 2>err2"
    expect "$kind: and says why" grep -q '^create: ' err2
done
make --no-print-directory -C "$ABODE_TREE" uninstall BUILD="$build" PREFIX="$work/usr" >/dev/null
expect 'uninstall leaves no file' [ -z "$(find "$work/usr" -type f -o -type l)" ]
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ]
