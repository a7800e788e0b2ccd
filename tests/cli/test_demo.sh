#!/bin/bash
# test_demo - goal: the demo does what it says: it kills, recovers, checks, and ends with one JSON
# object that has what programs may rely on; it cleans up on every way out; it leaves a store that
# inspect and verify read; damage done to that store is found, named, and never read as good bytes.
# Method: small demos (a few seconds each), the last line taken apart with sed.
# shellcheck disable=SC2015
# test timeout: 900 s
set -uo pipefail
tree=${ABODE_TREE:-$(cd "$(dirname "$0")/../.." && pwd)}
abode=${ABODE_BUILD:-$tree/build}/abode
work=$(mktemp -d "${TMPDIR:-/tmp}/abode-demo.XXXXXX")
trap 'rm -rf "$work"' EXIT
passed=0 failed=0 skipped=0
seed=${ABODE_TEST_SEED:-7}
# room enough that no spill has to wait for compaction
size=(--sessions 24 --memory 160M --store-size 480M --quiet --seed "$seed")
echo "seed $seed (ABODE_TEST_SEED)"

pass() { passed=$((passed + 1)); }
fail() {
    failed=$((failed + 1))
    echo "FAIL $1"
}
check() { if [ "$2" = "$3" ]; then pass; else fail "$1: wanted '$3', got '$2'"; fi; }
# a number or a word of the JSON line in the file
field() { tail -n 1 "$1" | sed -nE "s/.*[{,]\"$2\":(\"([^\"]*)\"|([^,}]*)).*/\2\3/p"; }
# nothing of ours is left in the scratch folder
clean() {
    local left
    left=$(find "$work/tmp" -mindepth 1 | head -n 3)
    [ -z "$left" ] && pass || fail "$1 leaves behind: $left"
}

if [ ! -x "$abode" ]; then
    echo "SKIP: no $abode: make all"
    echo "0 passed, 0 failed, 1 skipped"
    exit 77
fi
mkdir "$work/tmp"
export TMPDIR=$work/tmp

# ---- the whole of it
"$abode" demo "${size[@]}" --json --list >"$work/out" 2>"$work/error"
status=$?
check "status" $status 0
[ $status = 0 ] || cat "$work/error"
for name in sessions turns bytes_verified bytes_wrong kills acknowledged_lost seconds restore_gbps; do
    [ -n "$(field "$work/out" $name)" ] && pass || fail "no $name in the JSON"
done
check "sessions" "$(field "$work/out" sessions)" 24
check "kills" "$(field "$work/out" kills)" 2
check "processes" "$(field "$work/out" processes)" 4
check "bytes_wrong" "$(field "$work/out" bytes_wrong)" 0
check "acknowledged_lost" "$(field "$work/out" acknowledged_lost)" 0
check "deleted_returned" "$(field "$work/out" deleted_returned)" 0
[ "$(field "$work/out" bytes_verified)" -gt 100000000 ] && pass || fail "too little was verified"
[ "$(field "$work/out" spills_at_kills)" -gt 0 ] && pass || fail "no spill was under way at a kill"
for object in '"stateless":{' '"stateful":{' '"places":[{' '"support":{'; do
    tail -n 1 "$work/out" | grep -qF "$object" && pass || fail "no $object in the JSON"
done
for part in 'where every session lives' 'memory of node' 'store on' 'every byte' 'cost' \
    'stateless against stateful' 'tokens to compute' 'GiB x s'; do
    grep -qF "$part" "$work/out" && pass || fail "'$part' is not in the report"
done
widest=$(sed -n '/^where/,/^stateless/p' "$work/out" | grep -v 'because:' | LC_ALL=C.UTF-8 wc -L)
[ "$widest" -le 80 ] && pass || fail "the picture is $widest columns wide"
grep -q $'\033' "$work/out" && fail "colours in a file" || pass
clean "a demo"

# ---- ASCII where the locale is no UTF-8
LC_ALL=C "$abode" demo "${size[@]}" --kills 0 --seconds 15 >"$work/ascii" 2>"$work/error"
check "status in the C locale" $? 0
LC_ALL=C grep -q '[^ -~]' "$work/ascii" && fail "not ASCII in the C locale" || pass
check "no kill" "$(grep -c '^  kill -9  *0,' "$work/ascii")" 1

# ---- a signal: nothing stays, status 1
# larger than above: it must not have ended by then
timeout --foreground -s INT 2 "$abode" demo --sessions 96 --memory 512M --store-size 1536M --quiet >"$work/out" 2>"$work/error"
[ -s "$work/error" ] && grep -q '^abode: demo: Interrupted' "$work/error" && pass ||
    fail "SIGINT says: $(cat "$work/error")"
clean "SIGINT"
"$abode" demo "${size[@]}" --kills 0 --seconds 1 --json >/dev/full 2>"$work/error"
check "status of a full output" $? 1
grep -q 'standard output: No space left' "$work/error" && pass || fail "full output: $(cat "$work/error")"
clean "a full output"

# ---- a store that stays
store=$work/store
"$abode" demo "${size[@]}" --kills 1 --store "$store" --keep >"$work/out" 2>"$work/error"
check "status of --keep" $? 0
grep -q "abode inspect $store" "$work/out" && pass || fail "--keep does not say what to do next"
"$abode" inspect "$store" >"$work/inspect" 2>"$work/error"
check "inspect" $? 0
grep -qE '^[0-9]+ sessions$' "$work/inspect" && pass || fail "inspect: $(head -n 5 "$work/inspect")"
"$abode" inspect --json "$store" >"$work/lines"
check "inspect --json" $? 0
check "every line is an object" "$(grep -cvE '^\{.*\}$' "$work/lines")" 0
[ "$(grep -c '"kind":"session"' "$work/lines")" -ge 20 ] && pass || fail "sessions are missing"
[[ $("$abode" inspect "$store" --rows 2) =~ 'and '[0-9]+' more' ]] && pass || fail "--rows does not cut"
"$abode" verify --json "$store" >"$work/verify" 2>"$work/error"
check "verify" $? 0
check "no block is bad" "$(field "$work/verify" blocks_bad)" 0
blocks=$(field "$work/verify" blocks_checked)
[ "${blocks:-0}" -gt 100 ] && pass || fail "verify looked at $blocks blocks"
"$abode" demo "${size[@]}" --store "$store" >"$work/out" 2>"$work/error"
check "a store that is there is refused" $? 2
"$abode" verify "$store" >/dev/null 2>&1
check "and untouched" $? 0

# ---- damage: a byte in the middle of each segment; what is live there is named
for segment in "$store"/segments/*; do
    bytes=$(stat -c %s "$segment")
    printf '\125\252\125\252' |
        dd of="$segment" bs=1 seek=$((bytes / 2)) conv=notrunc status=none
done
"$abode" verify --json "$store" >"$work/verify" 2>"$work/error"
check "status of damage" $? 1
[ "$(field "$work/verify" blocks_bad)" -gt 0 ] && pass || fail "damage is not found"
check "blocks are all looked at" "$(field "$work/verify" blocks_checked)" "$blocks"
grep -qE '^damaged: .*segments/[0-9a-f]+, bytes [0-9]+ to [0-9]+: ' "$work/verify" && pass ||
    fail "damage is not named: $(head -n 3 "$work/verify")"

# ---- not a store
mkdir "$work/empty"
for command in inspect verify; do
    "$abode" $command "$work/empty" >"$work/out" 2>"$work/error"
    check "$command of an empty directory" $? 1
    grep -q '^abode: ' "$work/error" && pass || fail "$command of an empty directory says nothing"
    [ -z "$(ls -A "$work/empty")" ] && pass || fail "$command made something"
done
: >"$store/superblock"
"$abode" inspect "$store" >"$work/out" 2>"$work/error"
check "inspect without a superblock" $? 1

echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
