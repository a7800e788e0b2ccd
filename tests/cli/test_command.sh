#!/bin/bash
# test_command - goal: the command's words: every subcommand has its help, a wrong command line is
# told in one line that names the thing and the mend, exit codes are 0, 1 and 2, sizes and choices
# are read with their bounds, completion and manual pages know what --help knows. Method: run it and
# look; nothing here opens a store, but for errors.
# shellcheck disable=SC2015
set -uo pipefail
tree=${ABODE_TREE:-$(cd "$(dirname "$0")/../.." && pwd)}
abode=${ABODE_BUILD:-$tree/build}/abode
work=$(mktemp -d "${TMPDIR:-/tmp}/abode-command.XXXXXX")
trap 'rm -rf "$work"' EXIT
passed=0 failed=0 skipped=0
commands='demo replay probe inspect verify bench'

pass() { passed=$((passed + 1)); }
fail() {
    failed=$((failed + 1))
    echo "FAIL $1"
}
check() { if [ "$2" = "$3" ]; then pass; else fail "$1: wanted '$3', got '$2'"; fi; }

# wrong WHAT STATUS PATTERN ARGUMENT...: fails so, in one line on standard error, nothing printed
wrong() {
    local what=$1 status=$2 pattern=$3 output error got
    shift 3
    output=$("$abode" "$@" 2>"$work/error" </dev/null)
    got=$?
    error=$(cat "$work/error")
    if [ $got != "$status" ]; then
        fail "$what: status $got, wanted $status: $error"
    elif [ -n "$output" ]; then
        fail "$what: printed something: $output"
    elif [ "$(wc -l <"$work/error")" != 1 ] || [[ $error != abode:\ * ]]; then
        fail "$what: not one line: $error"
    elif ! grep -qE -- "$pattern" <<<"$error"; then
        fail "$what: '$pattern' is not in: $error"
    else
        pass
    fi
}

if [ ! -x "$abode" ]; then
    echo "SKIP: no $abode: make all"
    echo "0 passed, 0 failed, 1 skipped"
    exit 77
fi

# ---- help and version
check "version" "$("$abode" --version)" "$("$abode" -V)"
version=$(awk '/define ABODE_VERSION_M|define ABODE_VERSION_P/ {printf dot $3; dot = "."}' \
    "$tree/include/abode/abode.h")
check "version is the header's" "$("$abode" --version)" "abode $version"
check "help and -h" "$("$abode" --help)" "$("$abode" -h)"
for command in $commands; do
    help=$("$abode" "$command" --help) || fail "$command --help: status $?"
    case $help in
    "usage: abode $command "*--help*) pass ;;
    *) fail "$command --help: $help" ;;
    esac
    check "help $command" "$("$abode" help "$command")" "$help"
    "$abode" --help | grep -qE "^ +$command +[a-z]" && pass || fail "--help does not list $command"
    if [ "$(awk 'length > 100' <<<"$help")" != "" ]; then
        fail "$command --help has lines of more than 100 columns"
    else
        pass
    fi
done

# ---- wrong command lines
wrong "nothing" 2 'abode demo'
wrong "a spelling" 2 "did you mean 'abode demo'" dmo
wrong "far from all" 2 "abode --help" frobnicate
wrong "too long to guess" 2 "abode --help" "$(printf 'x%.0s' {1..500})"
wrong "an unknown option" 2 "'--foo' is not an option here" demo --foo
wrong "an unknown letter" 2 "is not an option" demo -Z
wrong "a value is missing" 2 "'--memory' needs a value" demo --memory
wrong "an argument too many" 2 "'more' is one argument too many" demo more
wrong "an argument too few" 2 "argument is missing" verify
wrong "inspect of nothing" 2 "argument is missing" inspect
wrong "demo-host by hand" 2 "run 'abode demo'" demo-host
for size in '' x -1 1x 4Q 1e9999 ' 1' inf nan 0x10 1KK 1iB; do
    wrong "size '$size'" 2 'not a size|out of range' demo --memory "$size"
done
wrong "size of 10 EiB" 2 'too large' demo --memory 10000P
wrong "size below the range" 2 'out of range: give a size from' demo --memory 1K
for number in '' x -1 1.5 1x 0x1 99999999999999999999; do
    wrong "count '$number'" 2 'not a number|out of range' demo --sessions "$number"
done
wrong "one session" 2 'out of range' demo --sessions 1
wrong "a choice" 2 'choose one of auto\|uring' demo --io floppy
wrong "part of a choice" 2 'choose one of' demo --io ur
# shellcheck disable=SC2046
wrong "too many stores" 2 'more than 16' demo $(printf -- '--store x%s ' {1..17})
wrong "keep without a place" 2 'add --store' demo --keep
wrong "a store of no name" 2 'give a directory' demo --store ''
wrong "state that fits in memory" 2 'more state than memory' demo --memory 8G
wrong "memory for no session" 2 'give more --memory' demo --sessions 3 --memory 16M --store-size 64M
wrong "bench of nothing" 2 'block-size <= ' bench --size 1M

# ---- directories
mkdir "$work/full" && touch "$work/full/mine"
wrong "a directory of mine" 2 'not empty' demo --store "$work/full"
[ -f "$work/full/mine" ] && pass || fail "a file of the user's is gone"
wrong "no parent" 1 'No such file.*make the directory' demo --store "$work/no/such"
wrong "a file for a directory" 1 'Not a directory|not empty' demo --store "$work/full/mine"
wrong "probe in a file" 1 'Not a directory' probe "$work/full/mine"
wrong "probe nowhere" 1 'No such file' probe "$work/no"
wrong "bench nowhere" 1 'No such file' bench "$work/no"
long=$work/$(printf 'x%.0s' {1..4200})
wrong "a path too long" 2 'too long|name' probe "$long"

# ---- completion asks --help; a manual page knows every option
# shellcheck disable=SC1091
source "$tree/runtime/cli/completion/abode.bash"
compopt() { :; }
complete_words() { # WORD...: what the last one can become
    COMP_WORDS=("$abode" "$@") COMP_CWORD=$#
    _abode
    echo "${COMPREPLY[*]}"
}
check "completes commands" "$(complete_words de)" "demo"
check "completes options" "$(complete_words demo --see)" "--seed"
check "completes choices" "$(complete_words demo --io t)" "threads"
for command in $commands; do
    page=$tree/runtime/cli/man/abode-$command.1
    if [ ! -f "$page" ]; then
        fail "no manual page abode-$command.1"
        continue
    fi
    for option in $(_abode_options "$abode" "$command"); do
        if [ "$option" = --help ]; then
            continue
        fi
        # mdoc writes "Fl Fl name", man "\-\-name"; not a pipe: grep -q leaves when it has found it,
        # and tr would die of that, now and then
        grep -qE -- "(Fl Fl |--)${option#--}( |,|\$)" <(tr -d '\\' <"$page") && pass ||
            fail "abode-$command.1 does not know $option"
    done
done
if command -v mandoc >/dev/null; then
    for page in "$tree"/runtime/cli/man/*.1; do
        check "$(basename "$page")" "$(mandoc -T lint -W warning "$page")" ""
    done
else
    echo "SKIP: no mandoc: manual pages are not checked"
    skipped=$((skipped + 1))
fi

echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
