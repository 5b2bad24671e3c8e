#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Boot the reference kernel under QEMU TCG, once with each setting of the module
# parameters, and run the KVM selftests in it.
#
# usage: run-selftests.sh [SETTING...]     (all that kernel/rig/machine has, and one
#                                           with huge pages)
#
# A SETTING is what kernel/rig/machine takes, e.g. in-place+fixed+debug.
#
#   QEMU=      the QEMU that boots the kernel    (build/qemu/qemu-system-x86_64)
#   QEMU_DATA= further directories for its -L    (/usr/share/seabios /usr/share/qemu)
#   LIMIT=     seconds that a boot may take      (600)
#   SELFTESTS= names of the tests to run, with commas; in every setting, instead of
#              all of them, or of those for huge pages with +huge
#
# Every result is a line "selftest NAME SETTING ok|FAIL|skip(reason)"; the last
# line is the summary.  The console is in build/kernel/run/SETTING.log.
set -euo pipefail

. "$(dirname "$0")/common.sh"

qemu=${QEMU:-$root/build/qemu/qemu-system-x86_64}
data=${QEMU_DATA-/usr/share/seabios /usr/share/qemu}
limit=${LIMIT:-600}
run=$out/run

[ -x "$qemu" ] || die "no QEMU at $qemu (set QEMU=)"
[ -f "$out/bzImage" ] || die "no kernel, run kernel/scripts/build.sh first"
[ -d "$out/selftests" ] || die "no selftests, run kernel/scripts/build.sh first"

make_initramfs() {
    local dir=$run/initramfs

    rm -rf "$dir"
    mkdir -p "$dir"
    ${CC:-gcc} -O2 -Wall -Werror -static -o "$dir/init" "$kernel/rig/init.c"
    cp "$kernel/rig/selftests.list" "$dir/"
    cp -r "$out/selftests" "$dir/"
    (cd "$dir" && find . | sort | cpio --quiet -o -H newc | gzip -1) > "$run/initramfs.gz"
}

boot() {
    local setting=$1 log=$run/$1.log only='' dir args

    [[ $setting != *+huge* ]] || only=guest_memfd_conversions_test,guest_memfd_test
    only=${SELFTESTS:-$only}
    args=$("$kernel/rig/machine" "$setting" "$out/bzImage" "$run/initramfs.gz" loglevel=5 \
                                 kvm.force_emulation_prefix=1 ${only:+selftests=$only})
    mapfile -t args <<< "$args"
    args+=(-serial "file:$log")

    for dir in $data; do
        args+=(-L "$dir")
    done

    rm -f "$log"
    exec timeout -k 5 "$limit" "$qemu" "${args[@]}" < /dev/null
}

# Turn a console into results.  A test in TAP format has one for each of its cases.
results_of() {
    tr -d '\r' < "$run/$1.log" | awk -v setting="$1" '
        function result(name, what) {
            print "selftest", name, setting, what
            fflush()
        }
        function skip_reason(line) {
            sub(/^.*# SKIP[ :]*/, "", line)
            return "skip(" (line == "" ? "no reason given" : line) ")"
        }
        /^@@begin / { test = $2; cases = 0; failed = 0; reason = ""; next }
        /^@@end / {
            if ($3 == "exit=4")
                result(test, "skip(" (reason == "" ? "no reason given" : reason) ")")
            else if ($3 != "exit=0" && !failed)
                result(test, "FAIL")
            else if (!cases)
                result(test, "ok")
            test = ""
            next
        }
        test == "" { next }
        /^ok [0-9]+ .*# SKIP/ {
            name = $3; cases++
            result(test "/" name, skip_reason($0))
            next
        }
        /^ok [0-9]+ / { cases++; result(test "/" $3, "ok"); next }
        /^not ok [0-9]+ / { cases++; failed = 1; result(test "/" $4, "FAIL"); next }
        /# SKIP|skipping test|Requirement not met/ {
            reason = $0
            sub(/^.*# SKIP[ :-]*/, "", reason)
        }
        END { if (test != "") result(test, "FAIL") }
    '
}

if [ $# -eq 0 ]; then
    settings=$("$kernel/rig/machine" --settings)
    mapfile -t settings <<< "$settings"
    set -- "${settings[@]}" content-modes+huge
fi
for setting in "$@"; do
    "$kernel/rig/machine" "$setting" - - > /dev/null
done

mkdir -p "$run"
make_initramfs
: > "$run/results"

# One thread each: they boot side by side, and are judged in order.
bad=0
start=$SECONDS
declare -A booted
for setting in "$@"; do
    echo "# $setting: booting"
    boot "$setting" &
    booted[$setting]=$!
done
trap 'kill "${booted[@]}" 2>/dev/null || true' EXIT

for setting in "$@"; do
    if ! wait "${booted[$setting]}"; then
        echo "# $setting: QEMU failed, or exceeded $limit seconds"
        bad=1
    fi
    touch "$run/$setting.log"
    results_of "$setting" | tee -a "$run/results"
    if ! grep -q '^@@done' "$run/$setting.log"; then
        echo "selftest rig $setting FAIL" | tee -a "$run/results"
    fi
    if grep -Eqf "$kernel/rig/reports" "$run/$setting.log"; then
        echo "selftest kernel-log $setting FAIL" | tee -a "$run/results"
    else
        echo "selftest kernel-log $setting ok" | tee -a "$run/results"
    fi
    if grep -q " $setting FAIL" "$run/results"; then
        bad=1
        echo "# $setting: end of the console"
        tail -n 80 "$run/$setting.log" | sed 's/^/# /'
    fi
    echo "# $setting: judged after $((SECONDS - start)) s"
done

for setting in "$@"; do
    awk -v s="$setting" '
        $3 == s && $4 == "ok"    { ok++ }
        $3 == s && $4 == "FAIL"  { fail++ }
        $3 == s && $4 ~ /^skip/  { skip++ }
        END { printf "summary %s: %d ok, %d FAIL, %d skip\n", s, ok, fail, skip }
    ' "$run/results"
done
exit $bad
