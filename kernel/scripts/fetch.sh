#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Get the kernel source that kernel.lock pins, verified, as build/kernel/linux.tar.xz.
# In this order:
#
#   LINUX_TARBALL=FILE          any file that kernel.lock knows: the Debian package, the
#                               tarball inside it, or the subset
#   LINUX_SOURCE_URL=URL...     the same from a server (http, https or file)
#   the Debian package          from the mirror that this machine's apt uses, with a
#                               private apt state: nothing of the machine's own apt
#                               configuration is changed, and nothing is installed
#   ../shared/cache             the subset, beside the checkout
set -euo pipefail
. "$(dirname "$0")/common.sh"
. "$root/scripts/download.sh"

tarball=$out/linux.tar.xz
tried=()

failed() { tried+=("$1: $2"); }

# take FILE [PLACE]: is FILE one that kernel.lock pins?  Take it if so.
take() {
    local place=${2:-$1}

    if has_sha256 "$1" "$(lock deb-sha256)"; then
        dpkg-deb --fsys-tarfile "$1" | tar -xO "$(lock tar-member)" > "$out/member.tar.xz"
        set -- "$out/member.tar.xz"
    fi
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
    rm -f "$out/member.tar.xz"
    say "$(cat "$out/linux.kind") source of Linux $(lock version) from $place"
}

# What a file is that was not taken.
wrong() {
    printf 'sha256 is %s, which kernel.lock does not pin: it is damaged or another release, get %s %s' \
        "$(sha256sum < "$1" | cut -d' ' -f1)" "$(lock package)" "$(lock debian-version)"
}

# A file that is wrong although it went on from an earlier download is fetched
# once more, as a whole.
from_url() {
    local url=$1 file=$out/download last

    for last in "" yes; do
        [ -s "$file.part" ] || last=yes
        download "$url" "$file" || {
            failed "$url" "$DOWNLOAD_ERROR"
            return 1
        }
        if take "$file" "$url"; then
            rm -f "$file"
            return
        fi
        [ -z "$last" ] || break
    done
    failed "$url" "$(wrong "$file")"
    rm -f "$file"
    return 1
}

from_urls() {
    local url urls

    read -ra urls <<< "${LINUX_SOURCE_URL:-}"
    for url in "${urls[@]}"; do
        say "asking $url"
        from_url "$url" && return
    done
    return 1
}

from_mirror() {
    mirror || {
        failed "the Debian mirror" "$(lock package) $(lock debian-version) is not to be had in $(lock suite)"
        return 1
    }
}

mirror() {
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
    take "$deb" || return 1
    rm -f "$deb"
}

mkdir -p "$out"

from_cache() {
    local subset
    subset=$root/../shared/cache/$(lock subset-file)

    [ -f "$subset" ] || {
        failed "$subset" "not there"
        return 1
    }
    say "falling back to the subset"
    take "$subset" || {
        failed "$subset" "$(wrong "$subset")"
        return 1
    }
}

if [ -n "${LINUX_TARBALL:-}" ]; then
    [ -f "$LINUX_TARBALL" ] || die "LINUX_TARBALL=$LINUX_TARBALL: no such file: correct the path"
    take "$LINUX_TARBALL" || die "LINUX_TARBALL=$LINUX_TARBALL: $(wrong "$LINUX_TARBALL")"
elif [ -f "$tarball" ] && take "$tarball"; then
    :
else
    from_urls || from_mirror || from_cache || {
        printf 'tried: %s\n' "${tried[@]}" >&2
        die "no source of Linux $(lock version): set LINUX_SOURCE_URL= or LINUX_TARBALL= to $(lock package) $(lock debian-version)"
    }
fi
