#!/bin/bash
# test_replay.sh - goal: both recorded samples run through the library with every byte right, models
# of each kind of state as well, and what is wrong with a command line or a trace is said with its
# mend. Method: the command itself; figures from its JSON, checked against what the trace says.
# test timeout: 900 s
set -uo pipefail
tree=${ABODE_TREE:-$(cd "$(dirname "$0")/../.." && pwd)}
abode=${ABODE_BUILD:-$tree/build}/abode
traces=$tree/bench/traces
work=$(mktemp -d "${TMPDIR:-/tmp}/abode-replay-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
passed=0 failed=0 skipped=0

if [ ! -x "$abode" ]; then
    echo "SKIP: $abode is not built"
    exit 77
fi
if ! command -v python3 >/dev/null; then
    echo "SKIP: no python3 to read the JSON with (package python3)"
    exit 77
fi

result() { # NAME STATUS [OUTPUT]
    if [ "$2" = 0 ]; then
        passed=$((passed + 1))
        echo "ok: $1"
    else
        failed=$((failed + 1))
        echo "FAILED: $1"
        [ $# -gt 2 ] && sed 's/^/    /' "$3" | tail -20
    fi
}

# runs NAME CONDITION ARGUMENT...: exit 0, and the condition holds for the JSON object r
runs() {
    local name=$1 condition=$2
    shift 2
    timeout 280 "$abode" replay --json --quiet "$@" >"$work/out" 2>"$work/err"
    local status=$?
    if [ $status = 0 ]; then
        tail -1 "$work/out" | python3 -c '
import json, sys
r = json.loads(sys.stdin.readline())
ok = r["bytes_wrong"] == 0 and r["bytes_verified"] > 0 and r["restore"]["from_memory"]["count"] >= 0
sys.exit(0 if ok and eval(sys.argv[1]) else 1)' "$condition"
        status=$?
    fi
    cat "$work/out" >>"$work/err"
    result "$name" $status "$work/err"
}

# refuses NAME STATUS WORDS ARGUMENT...: that exit status, the words on standard error, one line
refuses() {
    local name=$1 wanted=$2 words=$3
    shift 3
    timeout 60 "$abode" replay --quiet "$@" >"$work/out" 2>"$work/err"
    local status=$?
    if [ $status = "$wanted" ] && grep -qF -- "$words" "$work/err" && [ "$(wc -l <"$work/err")" = 1 ]; then
        result "$name" 0
    else
        echo "status $status" >>"$work/err"
        result "$name" 1 "$work/err"
    fi
}

agentic=$traces/agentic_sessions.jsonl
conversation=$traces/conversation.jsonl
small="--store-size 512M --requests 150"

talks=2500 agents=1056 # all there are
[ -z "${ABODE_SANITIZE:-}" ] || talks=600 agents="300 --memory 16M" # minutes else
# What a cache without end would have had is a property of the trace, not of the library.
runs "conversation sample, cache face" \
    'r["requests"] == '$talks' and r["restore"]["from_store"]["count"] > 0 and r["hit"]["rate"] > 0.5 * r["hit"]["rate_without_end"]' \
    --requests $talks "$conversation"
runs "agentic sample, session face" \
    'r["requests"] == '${agents%% *}' and r["restore"]["from_store"]["count"] > 0 and r["hit"]["rate"] > 0.9 * r["hit"]["rate_without_end"]' \
    --requests $agents "$agentic"
runs "window layers" 'r["requests"] == 150' $small --model gpt-oss-20b "$agentic"
runs "recurrent state" 'r["requests"] == 150 and r["run"]["bytes_per_restore_point"] > 0' \
    $small --model qwen3-next "$agentic"
runs "all four kinds" 'r["requests"] == 150' \
    $small --scale 1 --model paged:4x8,window:4x8@256,snapshot:2x4096,bytes:2000 "$agentic"
runs "conversations as sessions" 'r["run"]["face"] == "session" and r["hit"]["blocks_hit"] > 0' \
    --requests 400 --store-size 512M --face session "$conversation"
runs "wide windows, conversations as sessions" 'r["hit"]["blocks_hit"] > 0' \
    --requests 200 --store-size 512M --model gemma-3-27b --face session "$conversation"
runs "agentic by the cache" 'r["run"]["face"] == "cache" and r["hit"]["blocks_hit"] > 0' \
    --requests 100 --store-size 512M --face cache "$agentic"
runs "rows of 16 tokens, pread threads, no durability" 'r["requests"] == 150' \
    $small --block-tokens 16 --io threads --durability mem "$agentic"
runs "recorded speed" 'r["run"]["speed"] == 20000 and r["host"]["waited_for_trace_seconds"] > 0' \
    --requests 60 --store-size 512M --speed 20000x "$agentic"
small=500
[ -z "${ABODE_SANITIZE:-}" ] || small=200 # minutes else
runs "a store too small for the open state" 'r["hit"]["blocks_hit"] > 0' \
    --requests $small --store-size 256M --memory 96M --scale 0.002 "$agentic"

head -c 100000 "$agentic" >"$work/cut.jsonl"
refuses "a cut trace" 1 "the trace is cut" "$work/cut.jsonl"
: >"$work/empty.jsonl"
refuses "an empty trace" 1 "empty" "$work/empty.jsonl"
refuses "not a trace" 1 "not a trace" "$tree/LICENSE"
refuses "a trace that is missing" 1 "No such file" "$work/missing.jsonl"
refuses "no trace given" 2 "TRACE"
refuses "a model that is not known" 2 "no such model" --model llama-9 "$agentic"
refuses "words that are no geometry" 2 "KIND:PLANESxBYTES" --model paged:0x0 "$agentic"
refuses "recurrent state in the cache" 2 "--face session" --model qwen3-next "$conversation"
refuses "memory too small for one request" 2 "--memory" --memory 1M --scale 1 "$agentic"
refuses "memory too small for the requests at once" 2 "fewer --inflight" \
    --model qwen3-next --scale 0.0005 --memory 24M --inflight 64 "$agentic"
refuses "a speed that is none" 2 "--speed" --speed quick "$agentic"
refuses "too many requests at once" 2 "inflight" --inflight 65 "$agentic"
mkdir "$work/full" && : >"$work/full/file"
refuses "a store directory that is not empty" 2 "$work/full" --store "$work/full" "$agentic"

echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
