# SPDX-License-Identifier: GPL-2.0-or-later
# Shared by the scripts beside it: source it, do not run it.
# shellcheck shell=bash disable=SC2034

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
BUILD=$ROOT/build
SRC=$BUILD/src              # QEMU + hooks + links to the overlay, a git tree
QEMU=$BUILD/qemu            # where it is built
FULL=$BUILD/full            # where it is built with what Debian's QEMU has
DOWNLOADS=$BUILD/downloads  # kept by `make clean`
CACHE=$ROOT/../shared/cache # pinned copies, where the network has none

# Whose files stand at the same path in QEMU's tree, as git's pathspecs.  Of
# tests/ it is what is compiled: rigs and their data stay in this repository.
OVERLAY_DIRS=(accel backends docs hw include qapi system target)
OVERLAY=("${OVERLAY_DIRS[@]}" 'tests/*.[chS]' 'tests/*.inc' 'tests/*/meson.build')

PYTHON=/usr/bin/python3
export LC_ALL=C.UTF-8
unset CDPATH GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_PREFIX
umask 022

# shellcheck source=../upstream.lock
. "$ROOT/upstream.lock"

say() { printf '%s\n' "$*"; }
step() { printf '== %s\n' "$*"; }
warn() { printf 'warning: %s\n' "$*" >&2; }

# die MESSAGE [REMEDY]
die() {
    printf 'error: %s\n' "$1" >&2
    [ -z "${2:-}" ] || printf '  remedy: %s\n' "$2" >&2
    exit 1
}

# One make at a time; a script that another one calls shares its lock.
take_lock() {
    [ -z "${GMEM_LOCK_HELD:-}" ] || return 0
    mkdir -p "$BUILD"
    exec 9>"$BUILD/.lock"
    if ! flock -n 9; then
        say "waiting for another make in this checkout"
        flock 9
    fi
    export GMEM_LOCK_HELD=1
}

release_lock() {
    exec 9>&-
    unset GMEM_LOCK_HELD
}

# The build that is installed and packaged: CONFIGURATION is full, or quick.
packaged_build() {
    case ${CONFIGURATION:-full} in
    full) printf '%s' "$FULL" ;;
    quick) printf '%s' "$QEMU" ;;
    *) die "CONFIGURATION=$CONFIGURATION is neither full nor quick" "leave it out for full" ;;
    esac
}

# Print the last line of a growing log from time to time.  Waits without a
# child, which would outlive this one and keep a pipe from its end.
show_progress() {
    local line last='' never
    exec {never}<> <(:)
    while ! read -rt 15 -u "$never"; do
        line=$(tail -c 400 "$1" | tr '\r' '\n' | tail -n 1 | cut -c1-100)
        [ "$line" = "$last" ] || printf '   %s\n' "$line"
        last=$line
    done
}

# run_log NAME COMMAND...: the output goes to build/log/NAME.log, and its tail
# is shown when the command fails.
run_log() {
    local name=$1 log=$BUILD/log/$1.log start=$SECONDS rc=0 reporter
    shift
    mkdir -p "$BUILD/log"
    : >"$log"
    show_progress "$log" 9>&- &
    reporter=$!
    # shellcheck disable=SC2064
    trap "kill $reporter 2>/dev/null" EXIT
    "$@" >"$log" 2>&1 </dev/null 9>&- || rc=$?
    kill "$reporter" 2>/dev/null || true
    wait "$reporter" 2>/dev/null || true
    trap - EXIT
    if [ "$rc" -ne 0 ]; then
        tail -n "${LOG_TAIL:-30}" "$log" >&2
        say "$name: failed after $((SECONDS - start)) s, whole log: $log" >&2
    fi
    return "$rc"
}

# git as this project needs it: no settings of the user or the machine may
# change a byte or an id.
plain_git() {
    GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null \
        git -c safe.directory='*' -c core.autocrlf=false \
        -c core.attributesFile=/dev/null -c core.excludesFile=/dev/null \
        -c gc.auto=0 -c maintenance.auto=false -c advice.detachedHead=false \
        "$@"
}
src_git() { plain_git -C "$SRC" "$@"; }

# The overlay's files, one a line, sorted.
overlay_files() {
    plain_git -C "$ROOT" ls-files -co --exclude-standard -- \
        "${OVERLAY[@]}" | sort -u |
        while IFS= read -r file; do
            [ ! -f "$ROOT/$file" ] || printf '%s\n' "$file"
        done
}

# base_commit_of TREE: what upstream.lock pins for either layout of the source.
base_commit_of() {
    case $1 in
    "$UPSTREAM_TREE") printf '%s' "$UPSTREAM_COMMIT" ;;
    "$UPSTREAM_RELEASE_TREE") printf '%s' "$UPSTREAM_RELEASE_COMMIT" ;;
    *) return 1 ;;
    esac
}

# The patches in the order of patches/series.
patch_names() { sed -e 's/#.*//' -e '/^[[:space:]]*$/d' "$ROOT/patches/series"; }

patches_id() {
    {
        patch_names
        while IFS= read -r name; do cat "$ROOT/patches/$name"; done < <(patch_names)
    } | sha256sum | cut -d' ' -f1
}

# Whether patches/ is not what build/src was made from or exported to.
patches_changed() {
    [ "$(cat "$SRC/.git/gmem-patches" 2>/dev/null)" != "$(patches_id)" ]
}

# import_patches TREE: apply the series to the git tree TREE, no fuzz, no 3-way.
# The ids that come out are the same everywhere.
import_patches() {
    local name
    while IFS= read -r name; do
        [ -f "$ROOT/patches/$name" ] ||
            die "patches/series names $name, which is not there" "make export-patches, or correct the series"
        GIT_COMMITTER_NAME='qemu-gmem developers' \
            GIT_COMMITTER_EMAIL=qemu-gmem@localhost \
            plain_git -C "$1" -c am.threeWay=false -c am.keepcr=true \
            -c commit.gpgSign=false \
            am --quiet --keep-cr --no-3way --committer-date-is-author-date \
            "$ROOT/patches/$name" </dev/null >/dev/null || {
            plain_git -C "$1" am --abort 2>/dev/null || true
            die "patches/$name does not apply to QEMU $UPSTREAM_VERSION" \
                "correct it in build/src and run make export-patches"
        }
    done < <(patch_names)
}

# import_beside DIRECTORY: base and the series in a worktree of build/src, with
# only the files on disk that the series changes.
import_beside() {
    remove_worktree "$1"
    src_git worktree add --quiet --detach --no-checkout "$1" base
    patched_files | plain_git -C "$1" sparse-checkout set --no-cone --stdin
    plain_git -C "$1" read-tree -m -u HEAD
    import_patches "$1"
}

patched_files() {
    printf '/MAINTAINERS\n'
    patch_names | while IFS= read -r name; do
        sed -n 's|^+++ b/|/|p' "$ROOT/patches/$name"
    done
}

remove_worktree() {
    rm -rf "$1"
    src_git worktree prune
}

# need_space PATH MEGABYTES
need_space() {
    local have
    have=$(df -Pm "$1" | awk 'NR == 2 { print $4 }')
    [ "$have" -ge "$2" ] ||
        die "not enough space in $1: need $2 MB, have $have MB" \
            "free some, or put the checkout on a larger file system"
}

# Whether build/src holds work that patches/ does not: "commits", "edits" or "".
local_work() {
    local ours
    ours=$(src_git rev-parse --verify --quiet refs/gmem/imported || true)
    if [ "$(src_git rev-parse HEAD)" != "$ours" ]; then
        say "commits"
    elif [ -n "$(src_git status --porcelain --untracked-files=no)" ]; then
        say "edits"
    fi
}

# format_patches TREE COMMIT DIRECTORY: one file a commit since "base", named by
# its subject, and the series.  The same commits give the same bytes anywhere.
format_patches() {
    local number=0 commit name
    mkdir -p "$3"
    : >"$3/series"
    for commit in $(plain_git -C "$1" rev-list --reverse base.."$2"); do
        name=$(plain_git -C "$1" show -s --format=%f "$commit" | tr '[:upper:]' '[:lower:]').patch
        [ ! -e "$3/$name" ] || die "two patches have the subject of $name"
        plain_git -C "$1" -c format.headers= format-patch --quiet --stdout \
            --zero-commit --no-signature --no-numbered --no-stat --full-index \
            --unified=1 --no-renames --diff-algorithm=myers \
            -1 "$commit" >"$3/$name"
        printf '%s\n' "$name" >>"$3/series"
    done
}

# write_base DIRECTORY: the files of the base commit, without git.
write_base() {
    mkdir -p "$1"
    GIT_INDEX_FILE=$SRC/.git/stock-index src_git read-tree base
    GIT_INDEX_FILE=$SRC/.git/stock-index src_git checkout-index -a --prefix="$1/"
    rm -f "$SRC/.git/stock-index"
}
