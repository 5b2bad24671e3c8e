# SPDX-License-Identifier: GPL-2.0-or-later
# For parts of rigs: source it after lib.sh.
# shellcheck shell=bash

# run_tap SOURCE...: run the test program of each, which prints TAP.  One that
# was not built, or dies without a word, must not look as if it had passed.
run_tap() {
    local source program output status
    output=$(mktemp)
    for source; do
        program=${source#"$SRC"/}
        program=${program%.c}
        [ -f "$source" ] || continue
        say "# program $program"
        [ -x "$program" ] || { say "Bail out! it was not built"; continue; }
        status=0
        timeout "${TAP_TIMEOUT:-600}" "$program" --tap -k |
            tee "$output" || status=${PIPESTATUS[0]}
        [ "$status" -eq 0 ] || grep -Eq '^(not ok|Bail out!)' "$output" ||
            say "Bail out! exit status $status"
    done
    rm -f "$output"
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
