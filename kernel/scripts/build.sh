#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
#
# build.sh [debug|image]: build the reference kernel and its KVM selftests, or the
# same kernel with debug options, or no more than the first two of these:
#
#   build/kernel/bzImage                 configured by l1.config and guest/guest.config:
#                                        the kernel of the rig, and of a guest
#   build/kernel/modules/                its modules
#   build/kernel/bzImage-in-place-only   and l1-in-place-only.config
#   build/kernel/bzImage-debug           l1.config and l1-debug.config
#   build/kernel/selftests/              static binaries, for run-selftests.sh
#
# Nothing is done if neither patches nor configuration nor source have changed.
# JOBS= sets the number of jobs, OUT= another directory than build/kernel.
set -euo pipefail
. "$(dirname "$0")/common.sh"

jobs=${JOBS:-$(nproc)}
src=$out/linux
obj=$out/obj
what=${1:-}
stamp=$out/stamp${what:+-$what}
log=$out/build${what:+-$what}.log
tests=(guest_memfd_test pre_fault_memory_test set_memory_region_test
       x86/guest_memfd_conversions_test x86/private_mem_conversions_test
       x86/private_mem_emulation_test x86/private_mem_kvm_exits_test)

key() {
    (
        cd "$kernel"
        sha256sum kernel.lock {.,guest}/*.config scripts/build.sh {.,guest}/patches/{series,*.patch}
    ) | sha256sum | cut -d' ' -f1
}

need() {
    local missing=() tool

    for tool in gcc make flex bison bc rsync cpio xz git; do
        command -v "$tool" > /dev/null || missing+=("$tool")
    done
    [ -f /usr/include/libelf.h ] || missing+=(libelf-dev)
    [ -f /usr/include/openssl/ssl.h ] || missing+=(libssl-dev)
    [ ${#missing[@]} -eq 0 ] || die "please install: ${missing[*]}"
}

# Run a command with its output in the log, and say how it's getting on.
quietly() {
    local what=$1 start=$SECONDS pid
    shift

    "$@" >> "$log" 2>&1 &
    pid=$!
    while kill -0 "$pid" 2> /dev/null; do
        sleep 1
        if (( (SECONDS - start) % 30 == 29 )); then
            say "$what: $((SECONDS - start)) s, $(grep -c '^  ' "$log" || :) steps"
        fi
    done
    if ! wait "$pid"; then
        tail -n 40 "$log" >&2
        die "$what failed, see $log"
    fi
    say "$what: done in $((SECONDS - start)) s"
}

# Apply patches without fuzz.  The tree must not be taken for a part of this
# repository, and files that the subset doesn't have are none of its business.
apply() {
    local exclude=()

    [ "$(cat "$out/linux.kind")" = full ] || exclude=(--exclude='Documentation/*' --exclude='drivers/firmware/*')
    (cd "$src" && GIT_CEILING_DIRECTORIES=$out git apply "${exclude[@]}" "$@")
}

unpack() {
    local id files applied i n=0

    id=$(sha256sum < "$out/linux.tar.xz")
    if [ ! -f "$out/linux.id" ] || [ "$(cat "$out/linux.id")" != "$id" ]; then
        rm -rf "$src" "$obj" "$obj"-* "$out/applied" "$out/linux.id"
        mkdir -p "$src" "$out/applied"
        quietly "unpack" tar -C "$src" --strip-components=1 -xf "$out/linux.tar.xz"
        echo "$id" > "$out/linux.id"
    fi
    # Patches that differ are taken back, the last one first, and files that none of
    # them changes are not compiled again.
    mapfile -t files < <(patch_files)
    mapfile -t applied < <(find "$out/applied" -name '*.patch' | sort)
    while cmp -s "${files[n]:-}" "${applied[n]:-}"; do
        n=$((n + 1))
    done
    for ((i = ${#applied[@]} - 1; i >= n; i--)); do
        apply --reverse "${applied[i]}"
        rm "${applied[i]}"
    done
    for ((i = n; i < ${#files[@]}; i++)); do
        apply "${files[i]}"
        cp "${files[i]}" "$out/applied/$((100 + i))-${files[i]##*/}"
    done
    say "${#files[@]} patches applied"
}

# The line in FRAGMENT... that has the last word on each option.
wanted() {
    awk '{ sub(/^# /, "") }
         /^CONFIG_[A-Z0-9_]*(=| is not set)/ { split($0, word, /[= ]/); last[word[1]] = $0 }
         END { for (name in last) if (last[name] ~ /=y$/) print last[name] }' "$@" | sort
}

# configure DIR FRAGMENT...
configure() {
    local dir=$1 missing=() subset=()
    shift

    [ "$(cat "$out/linux.kind")" = full ] || subset=("$kernel/l1-subset.config")
    mkdir -p "$dir"
    {
        make -s -C "$src" O="$dir" tinyconfig
        (cd "$src" && scripts/kconfig/merge_config.sh -m -O "$dir" "$dir/.config" "$@" "${subset[@]}")
        make -s -C "$src" O="$dir" olddefconfig
    } >> "$log" 2>&1 || die "configuration failed, see $log"

    # An option that silently got lost is worse than one that's missing.
    mapfile -t missing < <(wanted "$@" "${subset[@]}" | grep -vxFf "$dir/.config")
    [ ${#missing[@]} -eq 0 ] || die "did not survive: ${missing[*]}"
    [ ${#subset[@]} -eq 0 ] || say "the subset is without$(sed -n 's/^# CONFIG_\([A-Z0-9_]*\) is.*/ \1/p' \
                                                         "${subset[@]}" | tr -d '\n')"
}

# build_image NAME DIR FRAGMENT...
build_image() {
    local name=$1 dir=$2

    configure "${@:2}"
    quietly "$name" make -C "$src" O="$dir" -j"$jobs" bzImage
    cp "$dir/arch/x86/boot/bzImage" "$out/$name"
}

# The kernel that is host and guest, and what a guest loads into it.
build_both() {
    build_image bzImage "$obj" "${fragments[@]}"
    rm -rf "$out/modules"
    mkdir "$out/modules"
    [ "$(cat "$out/linux.kind")" = full ] || return 0
    quietly "modules" make -C "$src" O="$obj" -j"$jobs" modules
    find "$obj" -name '*.ko' -exec cp {} "$out/modules/" \;
}

build_selftests() {
    local hdr=$out/headers dst=$out/selftests-obj test targets=()

    mkdir -p "$dst"
    for test in "${tests[@]}"; do
        targets+=("$dst/$test")
    done

    make -C "$src" O="$obj" ARCH=x86 INSTALL_HDR_PATH="$hdr" headers_install
    make -C "$src/tools/testing/selftests/kvm" -j"$jobs" ARCH=x86 OUTPUT="$dst" \
         KHDR_INCLUDES="-isystem $hdr/include" LINUX_HDR_PATH="$hdr/include/" \
         LDFLAGS="-static -pthread" "${targets[@]}"

    rm -rf "$out/selftests"
    mkdir -p "$out/selftests/x86"
    for test in "${tests[@]}"; do
        cp "$dst/$test" "$out/selftests/$test"
    done
}

case $what in
"") images=("$out/bzImage" "$out/modules" "$out/bzImage-in-place-only" "$out/selftests") ;;
debug) images=("$out/bzImage-debug") ;;
image) images=("$out/bzImage" "$out/modules") ;;
*) die "usage: build.sh [debug|image]" ;;
esac

need
mkdir -p "$out"
key=$(key)

has_key() { [ -f "$1" ] && [ "$(cat "$1")" = "$key" ]; }

if { has_key "$stamp" || { [ "$what" = image ] && has_key "$out/stamp"; }; } &&
   ls -d "${images[@]}" > /dev/null 2>&1; then
    say "up to date"
    exit 0
fi

rm -f "$stamp"
: > "$log"
"$kernel/scripts/fetch.sh"
unpack
fragments=("$kernel/l1.config")
[ "$(cat "$out/linux.kind")" != full ] || fragments+=("$kernel/guest/guest.config")
if [ "$what" = debug ]; then
    build_image bzImage-debug "$obj-debug" "$kernel/l1.config" "$kernel/l1-debug.config"
elif [ "$what" = image ]; then
    build_both
else
    # The same objects: of a configuration that hardly differs, only KVM is compiled
    # again.
    build_image bzImage-in-place-only "$obj" "${fragments[@]}" "$kernel/l1-in-place-only.config"
    build_both
    quietly "selftests" build_selftests
fi
echo "$key" > "$stamp"
say "${images[*]}"
