#!/bin/bash
# test_scorecard.sh - goal: bench/scorecard keeps what was not run again, replaces what was, and says why
# something has no number. Method: benches that are shell scripts, in a build folder of their own.
set -uo pipefail
if ! command -v python3 >/dev/null; then
    echo "SKIP: no python3"
    exit 77
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/build/bench"
printf '# title\n\nwords before\n\n<!-- scorecard:begin -->\n<!-- scorecard:end -->\nwords after\n' \
    >"$work/README.md"
passed=0 failed=0
check() { # what, command...
    local what=$1
    shift
    if "$@"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAIL: $what"
    fi
}
# a bench with the ids $2, that writes one line for each asked id with the value $3
bench_make() {
    cat >"$work/build/bench/bench_$1" <<SCRIPT
#!/bin/bash
if [ "\$1" = --ids ]; then printf '%s\n' $2; exit 0; fi
[ "\$1" = --score ] && [ "\$3" = --json ] || exit 2
for id in \${2//,/ }; do
    echo '{"id":"'"\$id"'","what":"w | x","value":$3,"goal":">= 1","reached":true,"min":1,"max":9,' \\
        '"rounds":5,"note":"n","unit":"ratio","command":"c","machine":"m$3","commit":"k","date":"d"}' >>"\$4"
done
SCRIPT
    chmod +x "$work/build/bench/bench_$1"
}
score() { "$ABODE_TREE/bench/scorecard" --build "$work/build" --readme "$work/README.md" "$@" >"$work/out" 2>&1; }
value_is() { # id, value as in the JSON
    python3 - "$work/build/scorecard.json" "$1" "$2" <<'CODE'
import json, sys
lines = [json.loads(text) for text in open(sys.argv[1])]
found = [json.dumps(line["value"]) for line in lines if line["id"] == sys.argv[2]]
sys.exit(found != [sys.argv[3]] if sys.argv[3] != "absent" else bool(found))
CODE
}
table_has() { grep -qE "$1" "$work/README.md"; }
table_lacks() { ! table_has "$1"; }

bench_make one "P1.1m P1.64k" 2
bench_make two "P3" 3
check "a row is measured" score --only P1
check "its parts are there" value_is P1.64k 2
check "nothing else is" value_is P3 absent
check "the table has it" table_has '^\| P1\.1m \| w / x \| 2 \(1 \.\. 9\) \| >= 1 \| yes \| n \| d k \[a\] \|$'
check "words around the table stay" table_has '^words after$'
bench_make one "P1.1m P1.64k" 4
check "one part alone" score --only P1.64k,P3,P16
check "the part is new" value_is P1.64k 4
check "the other part stays" value_is P1.1m 2
check "another bench too" value_is P3 3
check "no bench: null" value_is P16 null
check "and its reason" table_has '^\| P16 \|.*not measured.*no bench'
check "machines are told apart" table_has '^- \[b\] m4$'
bench_make one "P1.all" 5
check "a whole row" score --only P1
check "parts that are gone leave" value_is P1.64k absent
check "in the table too" table_lacks '^\| P1\.64k'
check "the new part is there" value_is P1.all 5
printf '#!/bin/bash\n[ "$1" = --ids ] && echo P1.all && exit 0\nexit 3\n' >"$work/build/bench/bench_one"
not() { ! "$@"; }
check "a bench that fails fails the scorecard" not score --only P1
check "and its row has no number" value_is P1.all null
check "but a reason" table_has '^\| P1\.all \|.*bench_one ended with status 3'
check "an unknown row is refused" not score --only P99
check "and named" grep -q "no such row: P99" "$work/out"
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ]
