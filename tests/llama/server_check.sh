#!/bin/bash
# server_check.sh - an unchanged llama-server under libabode-llama.so: a slot is saved over HTTP, the server
# killed with -9, started again, the slot restored: the same answer, and no prompt computed again.
# --swa-full: without, the server computes the prompts of sliding-window models again after any restore,
# from its own files too.
set -uo pipefail
server=$LLAMA/build/bin/llama-server
preload=$ABODE_BUILD/llama/libabode-llama.so
[ -x "$server" ] || {
    echo "SKIP: llama-server is not built (runtime/adapters/llama_cpp/get server, about 15 minutes)"
    echo "0 passed, 0 failed, 1 skipped"
    exit 0
}
command -v curl >/dev/null || {
    echo "SKIP: no curl"
    echo "0 passed, 0 failed, 1 skipped"
    exit 0
}
folder=$(mktemp -d)
port=$((20000 + $$ % 20000))
pid=
trap '[ -n "$pid" ] && kill -9 "$pid" 2>/dev/null; rm -rf "$folder"' EXIT
mkdir "$folder/store" "$folder/slots"
passed=0 failed=0
check() {
    if eval "$2"; then
        echo "ok   $1" && passed=$((passed + 1))
    else
        echo "FAIL $1" && tail -n 8 "$folder/log" | cut -c 1-300 | sed 's/^/    | /' && failed=$((failed + 1))
    fi
}
start() {
    ABODE_LLAMA_STORE=$folder/store ABODE_LLAMA_MEMORY=$((256 << 20)) LD_PRELOAD=$preload \
        "$server" -m "$LLAMA/models/gemma.gguf" --port $port -c 2048 -np 2 -t 1 -tb 1 -fa on --swa-full \
        --slot-save-path "$folder/slots" --slots >>"$folder/log" 2>&1 &
    pid=$!
    for _ in $(seq 300); do
        curl -fs "localhost:$port/health" >/dev/null && return 0
        kill -0 $pid 2>/dev/null || return 1
        sleep 0.2
    done
    return 1
}
post() { curl -s "localhost:$port/$1" -H 'Content-Type: application/json' -d "$2"; }
text="The lighthouse keeper wrote in his log every evening. $(printf 'On day %s the sea was calm and a ship passed to the north. ' {1..25})"
complete() { # prompt: prints the answer
    python3 -c 'import json, sys
print(json.dumps(dict(prompt=sys.argv[1], n_predict=24, temperature=0, id_slot=0, cache_prompt=True)))' \
        "$1" >"$folder/body"
    post completion "@$folder/body" >"$folder/answer"
    python3 -c 'import json, sys; a = json.load(open(sys.argv[1])); print(a["content"]); print(a["timings"]["prompt_n"])' \
        "$folder/answer"
}

check "llama-server starts under the preload" start
complete "$text" >"$folder/first"
post "slots/0?action=save" '{"filename": "talk"}' >"$folder/saved"
check "the slot is saved" 'grep -q "\"n_saved\":[1-9]" "$folder/saved"'
check "a marker is left in the slot path" '[ "$(stat -c %s "$folder/slots/talk")" -lt 1000 ]'
complete "$text$(head -n -1 "$folder/first") And then" >"$folder/second"
kill -9 $pid && wait $pid 2>/dev/null
check "it starts again after kill -9" start
post "slots/0?action=restore" '{"filename": "talk"}' >"$folder/restored"
check "the slot is restored" 'grep -q "\"n_restored\":[1-9]" "$folder/restored"'
complete "$text$(head -n -1 "$folder/first") And then" >"$folder/third"
check "the same answer" '[ -s "$folder/third" ] && diff <(head -n -1 "$folder/second") <(head -n -1 "$folder/third") >/dev/null'
check "only the new tokens were computed ($(tail -n 1 "$folder/third"))" '[ "$(tail -n 1 "$folder/third")" -lt 40 ]'
post "slots/0?action=restore" '{"filename": "../talk"}' >"$folder/escaped"
check "a name that escapes the slot path is refused" 'grep -q error "$folder/escaped"'
check "the store was not refused" '! grep -q "own file" "$folder/log"'
echo "$passed passed, $failed failed, 0 skipped"
[ $failed = 0 ]
