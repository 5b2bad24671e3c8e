# SPDX-License-Identifier: GPL-2.0-or-later
# The two layouts of QEMU's source, unpacked and verified: source it after
# lib.sh.  SOURCE_ERROR says why a source was not taken.
# shellcheck shell=bash

UNPACKED=$BUILD/unpack/src
RELEASE=$ROOT/patches/release-tarball
SOURCE_ERROR=

sum_of() { sha256sum "$1" | cut -d' ' -f1; }
pinned_sum() { awk -v f="$1" '$2 == f { print $1 }' <<<"$UPSTREAM_SHA256"; }
package_files() { awk -v release="$UPSTREAM_RELEASE" '$2 != release { print $2 }' <<<"$UPSTREAM_SHA256"; }
is_package_file() { grep -qxF -e "$1" <(package_files); }

# has_pinned_sum FILE
has_pinned_sum() {
    local name sum
    name=$(basename "$1")
    [ -f "$1" ] || {
        SOURCE_ERROR="$name is missing: put it there"
        return 1
    }
    sum=$(sum_of "$1")
    [ "$sum" = "$(pinned_sum "$name")" ] || {
        SOURCE_ERROR="$name has sha256 $sum, expected $(pinned_sum "$name") (upstream.lock): it is damaged or another release, get it again"
        return 1
    }
}

has_package() {
    local name
    for name in $(package_files); do
        has_pinned_sum "$1/$name" || return 1
    done
}

empty_unpacked() {
    need_space "$BUILD" 6000
    rm -rf "$BUILD/unpack"
    mkdir -p "$BUILD/unpack"
}

# unpack_package DIRECTORY: Debian's source package in DIRECTORY, with Debian's
# changes.
unpack_package() {
    has_package "$1" || return 1
    empty_unpacked
    run_log unpack dpkg-source --no-check --no-copy -x "$1/$UPSTREAM_DSC" "$UNPACKED" || {
        SOURCE_ERROR="dpkg-source cannot unpack it: see $BUILD/log/unpack.log"
        return 1
    }
    rm -rf "$UNPACKED/.pc"
    check_unpacked "$UPSTREAM_TREE"
}

# unpack_release FILE: QEMU's own tarball, without what Debian leaves out and
# the build does not use.  Which files are used decides, not how they were packed.
unpack_release() {
    local what='the tarball of the release is whole, but its files are not'
    [ "$(sum_of "$1")" = "$(pinned_sum "$UPSTREAM_RELEASE")" ] ||
        what="it is not QEMU's own $UPSTREAM_RELEASE, and its files are not"
    empty_unpacked
    mkdir "$UNPACKED"
    run_log_quietly unpack unpack_used_files "$1" || {
        SOURCE_ERROR="it cannot be unpacked ($(head -n 1 "$BUILD/log/unpack.log")): it is damaged or no tarball, get it again"
        return 1
    }
    run_log_quietly unpack patch_release || {
        SOURCE_ERROR="$what those of QEMU $UPSTREAM_VERSION ($(sed -n '/^error: /{s///p;q}' "$BUILD/log/unpack.log")): get $UPSTREAM_RELEASE"
        return 1
    }
    check_unpacked "$UPSTREAM_RELEASE_TREE" || {
        SOURCE_ERROR="$what those of QEMU $UPSTREAM_VERSION ($SOURCE_ERROR): get $UPSTREAM_RELEASE again"
        return 1
    }
}

unpack_used_files() {
    tar -C "$UNPACKED" --strip-components=1 --no-same-owner --no-same-permissions \
        --anchored --no-wildcards-match-slash --wildcards \
        --exclude-from=<(sed '/^#/d; s|^|*/|' "$RELEASE/left-out") -xf "$1"
}

patch_release() {
    local patch
    for patch in "$RELEASE"/*.patch; do
        (cd "$UNPACKED" && GIT_CEILING_DIRECTORIES=$BUILD plain_git apply "$patch") || return
    done
}

# check_unpacked TREE: make it a git repository whose index has this tree id.
check_unpacked() {
    local tree
    plain_git init --quiet --template= --initial-branch=gmem "$UNPACKED"
    plain_git -C "$UNPACKED" config gc.auto 0
    plain_git -C "$UNPACKED" config maintenance.auto false
    plain_git -C "$UNPACKED" config core.autocrlf false
    plain_git -C "$UNPACKED" add -A -f
    tree=$(plain_git -C "$UNPACKED" write-tree)
    [ "$tree" = "$1" ] || {
        SOURCE_ERROR="tree id $tree, expected $1 (upstream.lock)"
        return 1
    }
}
