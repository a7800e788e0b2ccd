#!/bin/bash
# test_check_style - goal: tests/check_style finds what it says it finds. Method: a small tree that
# keeps every rule, then one planted fault at a time; each must fail exactly its own rule. A rule
# that went blind (a typing error in a pattern, an awk that stopped) is what this would catch.
set -uo pipefail
tree=${ABODE_TREE:-$(cd "$(dirname "$0")/../.." && pwd)}
work=$(mktemp -d "${TMPDIR:-/tmp}/abode-style.XXXXXX")
trap 'rm -rf "$work"' EXIT
passed=0 failed=0 skipped=0

fresh() {
    rm -rf "${work:?}/t"
    mkdir -p "$work/t/tests" "$work/t/runtime/base" "$work/t/runtime/io" "$work/t/runtime/cli" \
        "$work/t/kernels" "$work/t/bench" "$work/t/include/abode"
    cd "$work/t" || exit 1
    cp "$tree/tests/check_style" tests/
    cp "$tree/.clang-format" .
    cp "$tree/runtime/LAYERS" runtime/
    local folder
    for folder in runtime/base runtime/io runtime/cli kernels bench tests; do
        echo "# words" >$folder/README.md
    done
    printf '#include <stdio.h>\n\n#include "base/num.h"\n#include "io/io.h"\n#include "io_engine.h"\n' \
        >runtime/io/io.c
    printf '/* printf("no call") */\nint ab_io_x(void)\n{\n    return "malloc(1)"[0];\n}\n' >>runtime/io/io.c
    printf '#include <abode/abode.h>\n#include <stdio.h>\n\nint main(void)\n{\n    printf("x");\n}\n' \
        >runtime/cli/main.c
    printf '#include "kernels.h"\n' >kernels/kernels.c
}

# expect WHAT RULE: the tree as it stands breaks the one rule (none: empty)
expect() {
    local output rules
    output=$(tests/check_style 2>&1)
    rules=$(grep '^FAIL ' <<<"$output")
    if { [ -z "$2" ] && [ -z "$rules" ] && grep -qE ' 0 failed' <<<"$output"; } ||
        { [ -n "$2" ] && [[ $rules == "FAIL $2"* ]] && [ "$(wc -l <<<"$rules")" = 1 ]; }; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        printf 'FAIL %s: wanted "%s", got:\n%s\n' "$1" "$2" "$output"
    fi
}

# plant WHAT RULE FILE TEXT: TEXT (printf format) appended to FILE of a fresh tree
plant() {
    fresh
    # shellcheck disable=SC2059
    printf "$4" >>"$3"
    expect "$1" "$2"
}

fresh
expect "a clean tree" ""
plant "an upward include" "includes" runtime/base/a.c '#include "io/io.h"\n'
plant "the command knows an inside" "includes" runtime/cli/a.c '#include "base/num.h"\n'
plant "a kernel knows the runtime" "includes" kernels/a.c '#include "base/num.h"\n'
plant "a folder without a layer" "includes" kernels/a.c '#include "store/store.h"\n'
plant "strcpy" "calls" bench/a.c 'void f(char *a)\n{\n    strcpy(a, a);\n}\n'
plant "sprintf with a blank" "calls" tests/a.c 'void f(char *a)\n{\n    (void)atoi(a);\n}\n'
plant "malloc outside base" "memory" runtime/io/a.c 'void *f(void)\n{\n    return malloc(1);\n}\n'
plant "malloc in base" "" runtime/base/a.c 'void *f(void)\n{\n    return malloc(1);\n}\n'
plant "printf in the library" "the library does not print" runtime/io/a.c \
    'void f(void)\n{\n    printf("");\n}\n'
plant "abort in the library" "the library does not end" runtime/io/a.c 'void f(void)\n{\n    abort();\n}\n'
plant "abort in base" "the library does not end" runtime/base/os.c 'void f(void)\n{\n    abort();\n}\n'
plant "abort in check.c" "" runtime/base/check.c 'void f(void)\n{\n    abort();\n}\n'
plant "a direct syscall" "syscalls" runtime/io/a.c 'void f(void)\n{\n    close(1);\n}\n'
plant "one through the table" "" runtime/io/a.c 'void f(void)\n{\n    os->close(os, 1);\n}\n'
plant "OpenMP in a kernel" "kernels" kernels/a.c '#pragma omp parallel\n'
plant "a typedef" "structs" runtime/io/a.h 'typedef struct a a;\n'
plant "a long file" "files" runtime/io/a.c "$(printf 'int x;\\n%.0s' $(seq 801))"
plant "a file at the limit" "" runtime/io/a.c "$(printf 'int x;\\n%.0s' $(seq 800))"
plant "a long function" "functions" runtime/io/a.c \
    "void f(void)\n{\n$(printf '    x();\\n%.0s' $(seq 69))}\n"
plant "a function at the limit" "" runtime/io/a.c \
    "void f(void)\n{\n$(printf '    x();\\n%.0s' $(seq 68))}\n"
plant "deep nesting" "functions" tests/a.c \
    'void f(void)\n{\n    {\n        {\n            {\n                {\n                    {\n                    }\n                }\n            }\n        }\n    }\n}\n'
plant "unfinished business" "no unfinished" runtime/io/a.c '/* TO''DO */\n'
plant "a blank at the end of a line" "no tabs" bench/a.sh 'x \n'
plant "two files of one name" "names" runtime/base/io.c 'int y;\n'
fresh
rm kernels/README.md
expect "a folder without README.md" "every folder"
if command -v clang-format-14 >/dev/null; then
    plant "a wild layout" "clang-format" runtime/io/a.c 'int   x;\n'
else
    echo "SKIP: no clang-format-14"
    skipped=1
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
