#!/bin/bash
# test_measure - goal: probe and bench work on this machine, say what they got, and leave nothing.
# Method: run them small; take what was refused away (direct I/O on tmpfs, io_uring by --io).
# shellcheck disable=SC2015
set -uo pipefail
tree=${ABODE_TREE:-$(cd "$(dirname "$0")/../.." && pwd)}
abode=${ABODE_BUILD:-$tree/build}/abode
work=$(mktemp -d "${TMPDIR:-/tmp}/abode-measure.XXXXXX")
trap 'rm -rf "$work"' EXIT
passed=0 failed=0 skipped=0

pass() { passed=$((passed + 1)); }
fail() {
    failed=$((failed + 1))
    echo "FAIL $1"
}
check() { if [ "$2" = "$3" ]; then pass; else fail "$1: wanted '$3', got '$2'"; fi; }
has() { grep -qF -- "$2" "$work/out" && pass || fail "$1: no '$2' in: $(cat "$work/out")"; }

if [ ! -x "$abode" ]; then
    echo "SKIP: no $abode: make all"
    echo "0 passed, 0 failed, 1 skipped"
    exit 77
fi
mkdir "$work/dir"

"$abode" probe "$work/dir" >"$work/out" 2>"$work/error"
check "probe" $? 0
for part in 'nodes' 'device of the store' 'I/O' 'registered buffers' 'direct I/O' 'node binding' \
    'huge pages' 'locked memory'; do
    has "probe" "$part"
done
"$abode" probe --json "$work/dir" >"$work/out" 2>"$work/error"
check "probe --json" $? 0
check "one line" "$(wc -l <"$work/out")" 1
for part in '"nodes":[{' '"devices":[{' '"support":{' '"io_engine":{"got":' '"reason":'; do
    has "probe --json" "$part"
done
check "probe leaves nothing" "$(ls -A "$work/dir")" ""

for engine in threads sync; do
    "$abode" probe --io $engine --json "$work/dir" >"$work/out" 2>"$work/error"
    check "probe --io $engine" $? 0
    grep -qE "\"io_engine\":\{\"got\":\"[a-z/ ]*$engine" "$work/out" && pass ||
        fail "--io $engine got: $(cat "$work/out")"
done

"$abode" bench --size 16M --session-size 4M --block-size 256K --rounds 2 --json "$work/dir" \
    >"$work/out" 2>"$work/error"
check "bench" $? 0
for part in 'spill, durable' 'restore, verified' '"bytes_wrong":0' '"spill":{"gbps":' \
    '"restore":{"gbps":' '"p99_s":' '"cpu_ms_per_gb":' '"support":{'; do
    has "bench" "$part"
done
has "all is checked" '"bytes_checked":33554432'
check "bench leaves nothing" "$(ls -A "$work/dir")" ""

# a file system without O_DIRECT: works, and says so
if [ -d /dev/shm ] && [ -w /dev/shm ] && [ "$(stat -f -c %T /dev/shm)" = tmpfs ] &&
    [ "$(df --output=avail -k /dev/shm | tail -n 1)" -gt 262144 ]; then
    "$abode" probe /dev/shm >"$work/out" 2>"$work/error"
    check "probe on tmpfs" $? 0
    grep -A 1 'direct I/O' "$work/out" | grep -qE 'because|yes' && pass ||
        fail "no reason for direct I/O on tmpfs: $(cat "$work/out")"
    check "nothing on tmpfs" "$(find /dev/shm -maxdepth 1 -name 'abode-??????' -newer "$work/dir")" ""
else
    echo "SKIP: no tmpfs with 256 MiB at /dev/shm"
    skipped=$((skipped + 1))
fi

echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
