# SPDX-License-Identifier: GPL-2.0-or-later
# Configure and build a QEMU tree: ours, and the pristine one beside it, with
# the same options; ours with those of packaging/features, too.  Source it after
# lib.sh.
# shellcheck shell=bash

FIRMWARE=(/usr/share/qemu /usr/share/seabios /usr/lib/ipxe/qemu)

# Every option is named, so that what is built does not depend on which
# libraries a machine has.  What stays in is what needs no library beyond
# glib, pixman, libfdt and libnuma, and what QEMU's unit and x86_64 qtest
# suites exercise.
CONFIGURE_OPTIONS=(
    --python="$PYTHON" --disable-download --disable-docs --disable-install-blobs
    --firmwarepath="$(IFS=: && printf '%s' "${FIRMWARE[*]}")"
    --target-list=x86_64-softmmu --without-default-features
    --enable-kvm --enable-tcg --enable-numa --enable-fdt=system
    --enable-werror --enable-stack-protector --enable-malloc-trim
    --enable-pixman --enable-vnc --enable-tools --enable-guest-agent
    --enable-attr --enable-virtfs --enable-tpm --enable-hv-balloon
    --enable-vhost-kernel --enable-vhost-net --enable-vhost-user
    --enable-vhost-vdpa --enable-vhost-crypto --enable-vhost-user-blk-server
    --enable-multiprocess --enable-replication --enable-keyring
    --enable-plugins --enable-slirp
)

# The options of packaging/features.  QEMU finds its modules from where it is.
full_options() {
    printf '%s\n' --prefix=/usr --libdir=/usr/lib/qemu-gmem --libexecdir=/usr/lib/qemu \
        --sysconfdir=/etc --localstatedir=/var
    awk -F'\t' '!/^#/ { print "--enable-" $1 }' "$ROOT/packaging/features"
}

full_packages() { awk -F'\t' '!/^#/ && $2 != "-" { print $2 }' "$ROOT/packaging/features" | tr ' ' '\n'; }

# Modules, which are beside the program.
modules_of() { all_targets "$1" | sed -n 's/^\([^/]*\.so\): .*/\1/p'; }

# configure_tree SOURCE DIRECTORY PKGVERSION; CONFIGURE holds further options.
configure_tree() {
    local options extra wanted
    read -ra extra <<<"${CONFIGURE:-}"
    options=("${CONFIGURE_OPTIONS[@]}" "--with-pkgversion=$3" "${extra[@]}")
    wanted="$1 $2 ${options[*]}"
    [ "$(cat "$2/.configured" 2>/dev/null)" != "$wanted" ] || return 0
    step "configure $(basename "$2")"
    rm -rf "$2"
    mkdir -p "$2"
    run_log "configure-$(basename "$2")" run_configure "$1" "$2" "${options[@]}" ||
        die "QEMU's configure failed" "see $2/meson-logs/meson-log.txt"
    link_firmware "$2/qemu-bundle"
    printf '%s\n' "$wanted" >"$2/.configured"
}

# QEMU run from where it was built looks for its data below qemu-bundle only.
# Below its own prefix meson has links there, to files that are not built.
link_firmware() {
    local dir
    for dir in "${FIRMWARE[@]}"; do
        if [ -d "$1$dir" ] && [ ! -L "$1$dir" ]; then
            cp -rsf "$dir/." "$1$dir"
        else
            mkdir -p "$(dirname "$1$dir")"
            ln -sfn "$dir" "$1$dir"
        fi
    done
}

run_configure() {
    local source=$1
    cd "$2" || return
    shift 2
    "$source/configure" "$@"
}

# build_tree DIRECTORY TARGET...: a target with a * stands for all that match.
build_tree() {
    local dir=$1 targets
    shift
    mapfile -t targets < <(expand_targets "$dir" "$@")
    step "build $(basename "$dir")"
    NINJA_STATUS='[%f/%t] ' run_log "build-$(basename "$dir")" \
        ninja -C "$dir" "${targets[@]}" ||
        die "the build of $(basename "$dir") failed"
}

expand_targets() {
    local dir=$1 target
    shift
    for target; do
        case $target in
        *'*'*) matching_targets "$dir" "$target" ;;
        *) printf '%s\n' "$target" ;;
        esac
    done
}

# Objects and phony names are not matched by patterns.
matching_targets() {
    local name rule
    while IFS=': ' read -r name rule; do
        # shellcheck disable=SC2053
        [[ $name != $2 || $name == *.o || $name == *.p/* || $rule == phony ]] ||
            printf '%s\n' "$name"
    done < <(all_targets "$1")
}

# New files and options make build.ninja again; only then are its names right.
all_targets() {
    ninja -C "$1" build.ninja >/dev/null 2>&1 || true
    ninja -C "$1" -t targets all | sed '/^ninja: /d'
}
