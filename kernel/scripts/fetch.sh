#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Get the kernel source that kernel.lock pins, verified, as build/kernel/linux.tar.xz.
# In this order:
#
#   LINUX_TARBALL=FILE          either tarball that kernel.lock knows
#   the Debian package          from the mirror that this machine's apt uses, with a
#                               private apt state: nothing of the machine's own apt
#                               configuration is changed, and nothing is installed
#   ../shared/cache             the subset, beside the checkout
set -euo pipefail
. "$(dirname "$0")/common.sh"

tarball=$out/linux.tar.xz

# Is FILE one of the tarballs?  Take it if so.
take() {
    if has_sha256 "$1" "$(lock tar-sha256)"; then
        echo full > "$out/linux.kind"
    elif has_sha256 "$1" "$(lock subset-sha256)"; then
        echo subset > "$out/linux.kind"
    else
        return 1
    fi
    if [ ! "$1" -ef "$tarball" ]; then
        cp "$1" "$tarball.new"
        mv "$tarball.new" "$tarball"
    fi
    say "$(cat "$out/linux.kind") source of Linux $(lock version) from $1"
}

download() {
    local apt=$out/apt package deb site keyring

    package=$(lock package)
    command -v apt-get > /dev/null || return 1
    site=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' |
           grep -v security | sort -u | head -n 1)
    [ -n "$site" ] || return 1
    keyring=$(ls /usr/share/keyrings/debian-archive-keyring.* 2> /dev/null | head -n 1)

    mkdir -p "$apt/lists/partial" "$apt/archives/partial"
    : > "$apt/status"
    echo "deb ${keyring:+[signed-by=$keyring] }$site $(lock suite) main" > "$apt/sources.list"

    local options=(
        -o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o "Dir::State=$apt" -o "Dir::State::lists=$apt/lists"
        -o "Dir::State::status=$apt/status" -o "Dir::Cache=$apt"
        -o "Dir::Cache::archives=$apt/archives" -o APT::Sandbox::User=root
    )

    say "downloading $package $(lock debian-version)"
    apt-get -q "${options[@]}" update || return 1
    (cd "$apt" && rm -f ./*.deb &&
     apt-get -q "${options[@]}" download "$package=$(lock debian-version)") || return 1

    deb=$(ls "$apt"/*.deb)
    if ! has_sha256 "$deb" "$(lock deb-sha256)"; then
        say "$(basename "$deb") is not what kernel.lock pins"
        return 1
    fi
    dpkg-deb --fsys-tarfile "$deb" | tar -xO "$(lock tar-member)" > "$apt/linux.tar.xz"
    take "$apt/linux.tar.xz" || return 1
    rm -f "$deb" "$apt/linux.tar.xz"
}

mkdir -p "$out"

if [ -n "${LINUX_TARBALL:-}" ]; then
    take "$LINUX_TARBALL" || die "$LINUX_TARBALL is not what kernel.lock pins"
elif [ -f "$tarball" ] && take "$tarball"; then
    :
elif download; then
    :
elif [ -f "$root/../shared/cache/$(lock subset-file)" ]; then
    say "the package is not available, falling back to the subset"
    take "$root/../shared/cache/$(lock subset-file)" ||
        die "the subset is not what kernel.lock pins"
else
    die "no source of Linux $(lock version): set LINUX_TARBALL="
fi
