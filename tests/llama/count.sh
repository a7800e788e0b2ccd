# count.sh - sourced by the scripts here: check NAME CONDITION counts; what failed shows $folder/out.
passed=0 failed=0
check() {
    if eval "$2"; then
        echo "ok   $1" && passed=$((passed + 1))
    else
        echo "FAIL $1" && sed 's/^/    | /' "$folder/out" && failed=$((failed + 1))
    fi
}
# Last line; the exit status: nothing failed.
counted() {
    echo "$passed passed, $failed failed, 0 skipped"
    [ $failed = 0 ]
}
