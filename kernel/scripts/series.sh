#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Edit the series as commits.
#
#   series.sh import DIR    unpack the pinned source into DIR, as commit "base", and
#                           apply the series on top, with neither fuzz nor 3-way
#   series.sh export DIR    write base..HEAD of DIR back to kernel/patches
#   series.sh check DIR     checkpatch.pl --strict on base..HEAD of DIR
#   series.sh build DIR     compile KVM at each commit of base..HEAD of DIR, with SNP and
#                           TDX, without them, and without attributes of VMs
#
# For the series of the guest, kernel/guest/patches, which stands on the other one:
# import-guest, export-guest, check-guest. There "base" is the end of the first.
set -euo pipefail
. "$(dirname "$0")/common.sh"

import() {
    local tree

    [ ! -e "$1" ] || die "$1 exists"
    "$kernel/scripts/fetch.sh"
    mkdir -p "$1"
    tar -C "$1" --strip-components=1 -xf "$out/linux.tar.xz"
    cd "$1"
    git init -q
    git config user.name "qemu-gmem developers"
    git config user.email qemu-gmem@localhost
    git add -A -f
    git commit -q -m "Linux $(lock version)"
    git tag base

    tree=$(git rev-parse 'HEAD^{tree}')
    [ "$tree" = "$(lock tar-tree)" ] || [ "$tree" = "$(lock subset-tree)" ] ||
        die "the tree of the source is $tree"
    if [ "$tree" = "$(lock subset-tree)" ]; then
        say "the subset has no Documentation, its patches can't be applied"
        series | grep -v '^Documentation-' | sed "s|^|$kernel/patches/|" | xargs git am -q
    else
        series | sed "s|^|$kernel/patches/|" | xargs git am -q
    fi
}

import_guest() {
    local without='^$'

    import "$1"
    git tag -f base > /dev/null
    [ -d Documentation/arch ] || without='^\(Documentation\|firmware\)-'
    series "$kernel/guest/patches" | grep -v "$without" |
        sed "s|^|$kernel/guest/patches/|" | xargs git am -q
}

# export_patches TREE DIR: base..HEAD of TREE become the patches in DIR
export_patches() {
    local tmp patch name

    [ -d "$1/Documentation/arch" ] ||
        die "export needs the full source, a patch would be lost otherwise"
    tmp=$(mktemp -d)
    git -C "$1" format-patch -q --zero-commit --no-signature --no-numbered --no-stat \
        --full-index -N --filename-max-length=90 -o "$tmp" base..HEAD

    rm -f "$2"/*.patch
    for patch in "$tmp"/*.patch; do
        name=${patch##*/}
        name=${name#[0-9][0-9][0-9][0-9]-}
        mv "$patch" "$2/$name"
        echo "$name"
    done > "$2/series"
    rmdir "$tmp"
}

# New files are covered by wildcards in MAINTAINERS, which checkpatch doesn't see, and
# there is no history to look up what a Fixes: tag refers to.
check() {
    cd "$1"
    scripts/checkpatch.pl --strict --ignore FILE_PATH_CHANGES,UNKNOWN_COMMIT_ID -g base..HEAD
}

# configure DIR FRAGMENT...
configure() {
    local obj=$1
    shift

    mkdir -p "$obj"
    make -s O="$obj" tinyconfig > /dev/null
    scripts/kconfig/merge_config.sh -m -O "$obj" "$obj/.config" "$@" > /dev/null
    make -s O="$obj" olddefconfig
}

build() {
    local tree=$out/commits commit name config obj

    printf '# CONFIG_%s is not set\n' KVM_AMD_SEV KVM_INTEL_TDX > "$out/no-snp-no-tdx.config"
    git -C "$1" worktree add -q --force --detach "$tree" base
    cd "$tree"
    for commit in $(git -C "$1" rev-list --reverse base..HEAD -- arch include virt); do
        git checkout -q "$commit"
        name=$(git log -1 --format=%s)
        for config in l1 no-snp-no-tdx in-place-only; do
            obj=$out/commits-$config
            case $config in
            l1) configure "$obj" "$kernel/l1.config" ;;
            no-snp-no-tdx) configure "$obj" "$kernel/l1.config" "$out/no-snp-no-tdx.config" ;;
            *) configure "$obj" "$kernel/l1.config" "$kernel/l1-in-place-only.config" ;;
            esac
            make -s O="$obj" -j"${JOBS:-$(nproc)}" arch/x86/kvm/ || die "$config: $name"
            say "ok $config: $name"
        done
    done
    git -C "$1" worktree remove --force "$tree"
}

[ $# -eq 2 ] || die "usage: series.sh import[-guest]|export[-guest]|check[-guest]|build DIR"
case $1 in
import) import "$2" ;;
import-guest) import_guest "$2" ;;
export) export_patches "$2" "$kernel/patches" ;;
export-guest) export_patches "$2" "$kernel/guest/patches" ;;
check | check-guest) check "$2" ;;
build) build "$2" ;;
*) die "unknown command '$1'" ;;
esac
