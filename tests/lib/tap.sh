# SPDX-License-Identifier: GPL-2.0-or-later
# For parts of rigs: source it after lib.sh.
# shellcheck shell=bash

# run_program PROGRAM: what a test program prints, which is TAP, as one piece.
# One that was not built, or dies without a word, must not look as if it had
# passed.
run_program() {
    local output status=0
    output=$(mktemp)
    say "# program $1" >"$output"
    if [ -x "$1" ]; then
        timeout "${TAP_TIMEOUT:-600}" "$1" --tap -k >>"$output" || status=$?
        [ "$status" -eq 0 ] || grep -Eq '^(not ok|Bail out!)' "$output" ||
            say "Bail out! exit status $status" >>"$output"
    else
        say "Bail out! it was not built" >>"$output"
    fi
    flock "$TAP_LOCK" cat "$output"
    rm -f "$output"
}

# run_tap SOURCE...: run the test program of each, as many at a time as there
# are processors.
run_tap() {
    local source program
    TAP_LOCK=$(mktemp)
    export TAP_LOCK
    export -f run_program say
    # shellcheck disable=SC2016
    for source; do
        [ -f "$source" ] || continue
        program=${source#"$SRC"/}
        printf '%s\0' "${program%.c}"
    done | xargs -0 -r -n 1 -P "$(nproc)" bash -c 'run_program "$0"'
    rm -f "$TAP_LOCK"
}

# tap NAME COMMAND...: one test, which passes when the command does.  What it
# prints goes to the log.
tap() {
    local name=$1 rc=0
    shift
    # A function called under || would not stop at its first failing command.
    set +e
    (set -e; "$@") >&2 </dev/null
    rc=$?
    set -e
    if [ "$rc" -eq 0 ]; then
        say "ok - $name"
    else
        say "not ok - $name"
    fi
}
