# SPDX-License-Identifier: GPL-2.0-or-later
# The pinned libvirt's source, and the patches for it: source it after lib.sh.
# shellcheck shell=bash

. "$ROOT/scripts/apt.sh"
. "$ROOT/libvirt/libvirt.lock"
LIBVIRT_TARBALL=$DOWNLOADS/$LIBVIRT_ORIG

is_libvirt_source() {
    [ -f "$1" ] && [ "$(sha256sum "$1" | cut -d' ' -f1)" = "$LIBVIRT_SHA256" ]
}

# The revision that a suite has of the pinned version.
libvirt_revision() {
    apt-cache "${APT_OPTIONS[@]}" showsrc libvirt |
        awk -v v="$LIBVIRT_VERSION-" '$1 == "Version:" && index($2, v) == 1 { print $2; exit }'
}

# The suites share one upstream tarball; only that is needed.
fetch_libvirt_tarball() {
    local suite work=$BUILD/libvirt/fetch
    for suite in $LIBVIRT_SUITES; do
        rm -rf "$work"
        mkdir -p "$work"
        if private_apt source "$suite" &&
            (cd "$work" && run_log_quietly libvirt-source apt-get "${APT_OPTIONS[@]}" source \
                --download-only --tar-only "libvirt=$(libvirt_revision)") &&
            is_libvirt_source "$work/$LIBVIRT_ORIG"; then
            mv "$work/$LIBVIRT_ORIG" "$LIBVIRT_TARBALL"
            rm -rf "$work"
            return
        fi
    done
    return 1
}

fetch_libvirt_source() {
    mkdir -p "$DOWNLOADS"
    ! is_libvirt_source "$LIBVIRT_TARBALL" || return 0
    step "source of libvirt $LIBVIRT_VERSION"
    fetch_libvirt_tarball ||
        { is_libvirt_source "$CACHE/$LIBVIRT_ORIG" && cp "$CACHE/$LIBVIRT_ORIG" "$LIBVIRT_TARBALL"; } ||
        die "no source of libvirt $LIBVIRT_VERSION with the sha256 of libvirt/libvirt.lock" \
            "put $LIBVIRT_ORIG in build/downloads"
}

libvirt_patches() { sed -e 's/#.*//' -e '/^[[:space:]]*$/d' "$ROOT/libvirt/patches/series"; }

# The files that the patches change.
patched_libvirt_files() {
    local name
    for name in $(libvirt_patches); do
        sed -n 's|^--- a/||p' "$ROOT/libvirt/patches/$name"
    done | sort -u
}

# unpack_libvirt DIRECTORY [FILE...]: a git tree with the tag "base" and the
# patches as commits on top; no fuzz, no 3-way.  FILE: only these of its files.
unpack_libvirt() {
    local name
    rm -rf "$1"
    mkdir -p "$1"
    tar -C "$1" --strip-components=1 -xf "$LIBVIRT_TARBALL" "${@:2}" || return
    plain_git -C "$1" init --quiet --template= --initial-branch=gmem
    plain_git -C "$1" add -A -f
    libvirt_git "$1" commit --quiet -m "libvirt $LIBVIRT_VERSION"
    plain_git -C "$1" tag base
    for name in $(libvirt_patches); do
        libvirt_git "$1" -c am.threeWay=false am --quiet --no-3way \
            "$ROOT/libvirt/patches/$name" </dev/null || return
    done
}

libvirt_git() {
    local tree=$1
    shift
    GIT_AUTHOR_NAME='qemu-gmem developers' GIT_AUTHOR_EMAIL=qemu-gmem@localhost \
        GIT_COMMITTER_NAME='qemu-gmem developers' GIT_COMMITTER_EMAIL=qemu-gmem@localhost \
        plain_git -C "$tree" -c commit.gpgSign=false "$@"
}
