#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Build the reference kernel and its KVM selftests:
#
#   build/kernel/bzImage        the kernel, configured by l1.config
#   build/kernel/selftests/     static binaries, for run-selftests.sh
#
# Nothing is done if neither patches nor configuration nor source have changed.
# JOBS= sets the number of jobs, OUT= another directory than build/kernel.
set -euo pipefail
. "$(dirname "$0")/common.sh"

jobs=${JOBS:-$(nproc)}
src=$out/linux
obj=$out/obj
log=$out/build.log
tests=(guest_memfd_test pre_fault_memory_test set_memory_region_test
       x86/guest_memfd_conversions_test x86/private_mem_conversions_test
       x86/private_mem_kvm_exits_test)

key() {
    (cd "$kernel" && sha256sum kernel.lock l1.config l1-subset.config scripts/build.sh \
                               patches/series patches/*.patch) | sha256sum | cut -d' ' -f1
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

    [ "$(cat "$out/linux.kind")" = full ] || exclude=(--exclude='Documentation/*')
    (cd "$src" && GIT_CEILING_DIRECTORIES=$out git apply "${exclude[@]}" "$@")
}

unpack() {
    local id

    id=$(sha256sum < "$out/linux.tar.xz")
    if [ ! -f "$out/linux.id" ] || [ "$(cat "$out/linux.id")" != "$id" ]; then
        rm -rf "$src" "$obj" "$out/applied.patch" "$out/linux.id"
        mkdir -p "$src"
        quietly "unpack" tar -C "$src" --strip-components=1 -xf "$out/linux.tar.xz"
        echo "$id" > "$out/linux.id"
    fi

    # Go back to the pristine tree by the patch that was applied, if any, so that
    # files which don't change are not compiled again.
    if [ -f "$out/applied.patch" ]; then
        apply --reverse "$out/applied.patch"
        rm "$out/applied.patch"
    fi
    series | sed "s|^|$kernel/patches/|" | xargs cat > "$out/applied.patch.new"
    apply "$out/applied.patch.new"
    mv "$out/applied.patch.new" "$out/applied.patch"
    say "$(series | wc -l) patches applied"
}

configure() {
    local fragments=("$kernel/l1.config") line

    [ "$(cat "$out/linux.kind")" = full ] || fragments+=("$kernel/l1-subset.config")
    mkdir -p "$obj"
    {
        make -s -C "$src" O="$obj" tinyconfig
        (cd "$src" && scripts/kconfig/merge_config.sh -m -O "$obj" "$obj/.config" "${fragments[@]}")
        make -s -C "$src" O="$obj" olddefconfig
    } >> "$log" 2>&1 || die "configuration failed, see $log"

    # An option that silently got lost is worse than one that's missing.
    while read -r line; do
        if [[ $line == CONFIG_*=y ]] && ! grep -qx "$line" "$obj/.config" &&
           ! { [ ${#fragments[@]} -gt 1 ] && grep -q "${line%=y} is not set" "${fragments[1]}"; }; then
            [ ${#fragments[@]} -gt 1 ] && say "without $line" || die "$line did not survive"
        fi
    done < "$kernel/l1.config"
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

need
mkdir -p "$out"
key=$(key)

if [ -f "$out/stamp" ] && [ "$(cat "$out/stamp")" = "$key" ] &&
   [ -f "$out/bzImage" ] && [ -d "$out/selftests" ]; then
    say "up to date"
    exit 0
fi

rm -f "$out/stamp"
: > "$log"
"$kernel/scripts/fetch.sh"
unpack
configure
quietly "kernel" make -C "$src" O="$obj" -j"$jobs" bzImage
cp "$obj/arch/x86/boot/bzImage" "$out/bzImage"
quietly "selftests" build_selftests
echo "$key" > "$out/stamp"
say "$out/bzImage, $out/selftests"
