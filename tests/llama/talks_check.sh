#!/bin/bash
# talks_check.sh - abode-llama does not write over what a smaller context has no room for.
set -uo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
. "$(dirname "$0")/count.sh"
talk() { # tokens of context, lines
    printf '%s\n' "${@:2}" >"$folder/script"
    "$ABODE_BUILD/llama/abode-llama" --model "$LLAMA/models/gemma.gguf" --store "$folder/store" \
        --context "$1" --answer 8 --quiet --script "$folder/script" >"$folder/out" 2>&1
}
mkdir "$folder/store"
long=$(printf 'Tell me about river number %d. ' {1..40})
talk 1024 "anna: $long" "anna: Go on."
check "two turns" 'grep -qa "^.anna, [0-9]* tokens, still in the context" "$folder/out"'
talk 256 "anna: And?" "bert: Hello."
check "no room: said, and the turn is refused" 'grep -qa "anna: .*; it is left as it is" "$folder/out"'
check "others go on" 'grep -qa "^.bert, 0 tokens, new conversation" "$folder/out"'
talk 1024 "anna: And?"
check "small_context_keeps_the_talk: it is there" 'grep -qaE "^.anna, [0-9]{3} tokens, abode, from the store" "$folder/out"'
counted
