# SPDX-License-Identifier: GPL-2.0-or-later
# A new Debian to try packages in: source it after lib.sh.
# shellcheck shell=bash disable=SC2034

# shellcheck source=../../scripts/apt.sh
. "$ROOT/scripts/apt.sh"

SUITE=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
BASE=$BUILD/chroot/$SUITE.tar
NEW=$BUILD/chroot/new
NAME=qemu-gmem-system-x86_64

# Debian with the packages to come in apt's cache: later runs of check-deb need
# no network.
make_base() {
    local uri
    uri=$(debian_mirror)
    mkdir -p "$BUILD/chroot"
    # shellcheck disable=SC2016
    mmdebstrap --quiet --variant=minbase --skip=cleanup/apt \
        --aptopt='Acquire::Languages "none"' --aptopt='Acquire::Retries "2"' \
        --customize-hook='chroot "$1" apt-get -qq -y --download-only \
            --no-install-recommends install qemu-system-x86 \
            python3-prometheus-client' \
        "$SUITE" "$BUILD/chroot/new.tar" "deb $uri $SUITE main"
    mv "$BUILD/chroot/new.tar" "$BASE"
}

# It is gone when the caller ends.
new_debian() {
    "$ROOT/scripts/install-packages" mmdebstrap >&2
    [ -f "$BASE" ] || make_base >&2
    rm -rf --one-file-system "$NEW"
    mkdir -p "$NEW"
    tar -C "$NEW" -xf "$BASE"
    trap 'rm -rf --one-file-system "$NEW"' EXIT
}

# Mounts and processes of a command end with it.
inside() {
    # shellcheck disable=SC2016
    unshare --mount --pid --fork --kill-child bash -euo pipefail -c '
        mount --rbind /dev "$0/dev"
        mount -t proc proc "$0/proc"
        exec chroot "$0" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C \
            DEBIAN_FRONTEND=noninteractive bash -euo pipefail -c "$1"' \
        "$NEW" "$1" </dev/null
}

apt_inside() { inside "apt-get -q -y --no-install-recommends $1"; }
