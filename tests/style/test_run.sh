#!/bin/bash
# test_run - goal: tests/run counts right, above all when a test misbehaves: no failure may be lost.
# Method: a small tree whose "programs" are scripts that print and exit as asked, one case at a time;
# the closing line and the exit status are compared.
set -uo pipefail
tree=${ABODE_TREE:-$(cd "$(dirname "$0")/../.." && pwd)}
work=$(mktemp -d "${TMPDIR:-/tmp}/abode-run.XXXXXX")
trap 'rm -rf "$work"' EXIT
passed=0 failed=0
unset ABODE_LONG SANITIZE V

# program NAME: standard input becomes what it does
program() {
    mkdir -p "$work/tests/unit" "$work/build/tests"
    cp "$tree/tests/run" "$work/tests/run"
    : >"$work/tests/unit/$1.c"
    { echo '#!/bin/bash' && cat; } >"$work/build/tests/$1"
    chmod +x "$work/build/tests/$1"
}

# expect WHAT LAST_LINE STATUS [PATTERN [NAME ...]]: run the tree, then empty it
expect() {
    local what=$1 last=$2 wanted=$3 pattern=${4:-} output status=0
    shift $(($# < 4 ? $# : 4))
    output=$(ABODE_TEST_TIMEOUT_S=2 "$work/tests/run" "$work/build" "$@" 2>&1) || status=$?
    if [ "$(tail -n 1 <<<"$output")" = "$last" ] && [ $status = "$wanted" ] &&
        grep -q -- "$pattern" <<<"$output"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        printf 'FAIL %s: wanted "%s" (%s), got (%s):\n%s\n' "$what" "$last" "$wanted" $status "$output"
    fi
    rm -rf "${work:?}"/*
}

program test_a <<<'echo "[==========] 3 test(s) run.[  PASSED  ] 3 test(s)."'
expect "cmocka, all good" "3 passed, 0 failed, 0 skipped" 0 "^test_a  *3 passed"

program test_a <<<'printf "SKIP: no disk\nSKIP: no disk\n[  PASSED  ] 1 test(s).\n[  SKIPPED ] 2 test(s), listed below:\n[  SKIPPED ] x\n"'
expect "cmocka, some skipped" "1 passed, 0 failed, 2 skipped" 0 "test_a: 2 skipped: no disk (2 times)"

program test_a <<<'printf "[  PASSED  ] 1 test(s).\n[  SKIPPED ] 1 test(s), listed below:\n"'
expect "a skip without a reason" "1 passed, 0 failed, 1 skipped" 0 "no reason was printed"

program test_a <<<'printf "[  PASSED  ] 4 test(s).\n[  FAILED  ] 2 test(s), listed below:\n[  FAILED  ] x\n"; exit 2'
expect "cmocka, some failed" "4 passed, 2 failed, 0 skipped" 1 "2 FAILED (exit 2)"

program test_a <<<'printf "[  PASSED  ] 1 test(s).\n[  PASSED  ] 2 test(s).\n"'
expect "two groups in one program" "3 passed, 0 failed, 0 skipped" 0

program test_a <<<'printf "[ RUN      ] x\n[       OK ] x\n[ RUN      ] y\n"; kill -SEGV $$'
expect "a crash after one good test" "1 passed, 1 failed, 0 skipped" 1 "exit 139"

program test_a <<<'echo "[  PASSED  ] 5 test(s)."; exit 1'
expect "good counts, bad exit (a leak)" "5 passed, 1 failed, 0 skipped" 1

program test_a <<<'echo "hello"'
expect "nothing counted" "0 passed, 1 failed, 0 skipped" 1 "no test was counted"

program test_a <<<'echo "[  PASSED  ] 1 test(s)."; sleep 60'
expect "no end" "1 passed, 1 failed, 0 skipped" 1 "after 2 s without an end"

program test_a <<<'echo "SKIP: no such machine"; exit 77'
expect "skipped as a whole" "0 passed, 0 failed, 1 skipped" 0 "test_a: 1 skipped: no such machine"

program test_a <<<'printf "9 passed, 9 failed, 9 skipped\n7 passed, 0 failed, 0 skipped\n"'
expect "counts of its own, the last line" "7 passed, 0 failed, 0 skipped" 0

program test_a <<<'printf "7 passed, 1 failed, 0 skipped\n"'
expect "a failure that the exit status hides" "7 passed, 1 failed, 0 skipped" 1

program test_a <<<'echo "[  PASSED  ] 1 test(s)."'
rm "$work/build/tests/test_a"
expect "a program that was not built" "0 passed, 1 failed, 0 skipped" 1

program test_a <<<'echo "[  PASSED  ] 1 test(s)."'
rm "$work/tests/unit/test_a.c"
program test_b <<<'echo "[  PASSED  ] 2 test(s)."'
expect "a program whose source is gone" "2 passed, 0 failed, 0 skipped" 0

program test_a <<<'echo "[  PASSED  ] 1 test(s)."'
program test_b <<<'echo "[  PASSED  ] 2 test(s)."'
expect "only what was named" "2 passed, 0 failed, 0 skipped" 0 "" test_b

program test_a <<<'echo "[  PASSED  ] 1 test(s)."'
expect "a name that is no test" "0 passed, 0 failed, 0 skipped" 1 "" test_absent

echo "$passed passed, $failed failed, 0 skipped"
[ $failed = 0 ]
