#!/bin/bash
# test_neon.sh - the kernels' checks for aarch64: cross-compiled, statically linked, run under QEMU's
# user mode. Needs the Debian packages gcc-aarch64-linux-gnu and qemu-user-static. Of this machine's
# headers only xxhash.h is taken: with XXH_INLINE_ALL it needs no library.
set -euo pipefail
compiler=aarch64-linux-gnu-gcc
emulator=qemu-aarch64-static
if [ "$(uname -m)" = aarch64 ]; then
    echo "SKIP: this is an aarch64 machine, tests/unit/test_kernels.c ran NEON without emulation"
    exit 77
fi
for program in "$compiler" "$emulator"; do
    if ! command -v "$program" >/dev/null; then
        echo "SKIP: no $program (packages gcc-aarch64-linux-gnu, qemu-user-static)"
        exit 77
    fi
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/include"
cp "$(pkg-config --variable=includedir libxxhash)/xxhash.h" "$work/include/"
cd "$ABODE_TREE"
"$compiler" -std=gnu11 -D_GNU_SOURCE= -Wall -Wextra -Wundef -Werror -fno-strict-aliasing -O2 -static \
    -I. -Itests -isystem "$work/include" -o "$work/kernels_main" \
    tests/emulated/kernels_main.c tests/kernels_check.c kernels/kernels*.c
for table in scalar neon; do
    "$emulator" "$work/kernels_main" "$table" "${ABODE_TEST_SEED:-20240229}"
done
# the program says when it is asked for what this CPU lacks
status=0
"$emulator" "$work/kernels_main" avx2 || status=$?
if [ "$status" != 77 ]; then
    echo "avx2 on aarch64 ended with $status, not 77"
    echo "2 passed, 1 failed, 0 skipped"
    exit 1
fi
echo "3 passed, 0 failed, 0 skipped"
