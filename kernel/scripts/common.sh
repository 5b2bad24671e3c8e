# SPDX-License-Identifier: GPL-2.0-only
# Sourced by the other scripts: where things are, and what kernel.lock says.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
kernel=$root/kernel
out=${OUT:-$root/build/kernel}

die() {
    echo "$(basename "$0"): $*" >&2
    exit 1
}

say() {
    echo "$(basename "$0"): $*"
}

lock() {
    awk -v key="$1" '$1 == key { print $2; found = 1 } END { exit !found }' \
        "$kernel/kernel.lock" || die "no '$1' in kernel.lock"
}

# has_sha256 FILE SHA256
has_sha256() {
    [ "$(sha256sum < "$1" | cut -d' ' -f1)" = "$2" ]
}

# series [DIR]: the names of the patches in DIR (kernel/patches), in order
series() {
    grep -v '^#' "${1:-$kernel/patches}/series"
}

# patch_files: the patches of the rig, and then those of the guest, in order
patch_files() {
    series | sed "s|^|$kernel/patches/|"
    series "$kernel/guest/patches" | sed "s|^|$kernel/guest/patches/|"
}
