#!/bin/bash
# preload_check.sh - a program that links libllama, unchanged, under libabode-llama.so: its files of state
# lie in the store, survive kill -9, give the same logits, go when the file goes.
set -uo pipefail
program=$ABODE_BUILD/llama/slot_program
preload=$ABODE_BUILD/llama/libabode-llama.so
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/store" "$folder/slots"
. "$(dirname "$0")/count.sh"
plain() { "$program" "$@" >"$folder/out" 2>&1; }
kept() { ABODE_LLAMA_STORE=$folder/store ABODE_LLAMA_MEMORY=$((64 << 20)) LD_PRELOAD=$preload plain "$@"; }
digest() { grep -a '^digest' "$folder/out"; }

for model in attention mamba swa; do
    for how in seq all; do
        path=$folder/slots/$model-$how
        weights=$LLAMA/models/$model.gguf
        plain "$weights" "$folder/own" save $how
        reference=$(digest)
        kept "$weights" "$path" save $how kill
        check "$model, $how: killed after its save" '[ $? = 137 ] || grep -qa "^save [1-9]" "$folder/out"'
        check "$model, $how: a marker is left where the file was" '[ "$(stat -c %s "$path")" -lt 1000 ]'
        kept "$weights" "$path" load $how
        check "$model, $how: the same logits in a new process" '[ -n "$reference" ] && [ "$(digest)" = "$reference" ]'
    done
done
weights=$LLAMA/models/attention.gguf
path=$folder/slots/attention-seq
plain "$weights" "$folder/own" save seq
reference=$(digest)
mv "$path" "$folder/moved"
kept "$weights" "$folder/moved" load seq
check "a moved file still means its state" '[ -n "$reference" ] && [ "$(digest)" = "$reference" ]'
kept "$weights" "$path" save seq
kept "$weights" "$path" drop seq
kept "$weights" "$folder/moved" load seq
check "moved_marker_is_its_own: another one at its old place is not the same" \
    '[ -n "$reference" ] && [ "$(digest)" = "$reference" ]'
kept "$weights" "$folder/first" save seq empty
kept "$weights" "$folder/first" load seq
check "an empty sequence that is saved first teaches nothing wrong" '[ "$(digest)" = "$reference" ]'
kept "$weights" "$folder/moved" load seq
check "... of the others either" '[ "$(digest)" = "$reference" ]'
kept "$LLAMA/models/swa.gguf" "$folder/moved" load seq
check "another model: not restored, and why" 'grep -qa "it was saved with weights=" "$folder/out"'
cp "$folder/moved" "$folder/copy"
kept "$weights" "$folder/moved" drop seq
check "the program removes the file" '[ ! -e "$folder/moved" ]'
kept "$weights" "$folder/copy" load seq
check "its state is gone too" 'grep -qa "nothing is kept under this name" "$folder/out"'
kept "$weights" "$folder/refused" save seq
cp "$folder/refused" "$folder/copy"
kept "$weights" "$folder/refused" save seq short
check "what the store cannot take: llama.cpp's own file, and it says so" \
    '[ "$(stat -c %s "$folder/refused")" -gt 10000 ] && grep -qa "own file is written" "$folder/out"'
kept "$weights" "$folder/copy" load seq
check "the state of the marker that it replaced is gone" 'grep -qa "nothing is kept under this name" "$folder/out"'
LD_PRELOAD=$preload plain "$weights" "$folder/plain" save seq
check "without a store: llama.cpp's own file, and it says so" \
    '[ "$(stat -c %s "$folder/plain")" -gt 10000 ] && grep -qa "ABODE_LLAMA_STORE names no directory" "$folder/out"'
kept "$weights" "$folder/plain" load seq
check "llama.cpp's own files are still loaded" '[ "$(digest)" = "$reference" ]'
echo text >"$folder/file"
ABODE_LLAMA_STORE=$folder/file LD_PRELOAD=$preload plain "$weights" "$folder/plain2" save seq
check "a store that cannot be: llama.cpp's own file" \
    '[ "$(stat -c %s "$folder/plain2")" -gt 10000 ] && grep -qa "own files are used" "$folder/out"'
counted
