# SPDX-License-Identifier: GPL-2.0-or-later
# Private apt state under build/apt, for what this machine's own lists do not
# have: source it after lib.sh.  The mirror is the one the machine uses; its
# proxies, credentials and keys are left as they are.
# shellcheck shell=bash disable=SC2016,SC2034

APT_OPTIONS=()
APT_ERROR=

# Without lists apt does not know which of its sources is Debian's.
debian_mirror() {
    local uri
    uri=$(apt-get indextargets --format '$(REPO_URI)|$(RELEASE)|$(ORIGIN)' \
        'Created-By: Packages' 2>/dev/null |
        awk -F'|' '$3 == "Debian" && $2 !~ /security/ { print $1; exit }')
    [ -n "$uri" ] || uri=$(apt-get indextargets --no-release-info \
        --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
        awk '/\/debian\/?$/ { print; exit }')
    printf '%s' "$uri"
}

# private_apt KIND SUITE: lists of one suite in build/apt/KIND-SUITE, where
# KIND is "source" or "binary"; sets APT_OPTIONS.
private_apt() {
    local kind=$1 suite=$2 dir=$BUILD/apt/$1-$2 uri key
    uri=$(debian_mirror)
    APT_ERROR=
    [ -n "$uri" ] || {
        APT_ERROR="apt knows no Debian mirror"
        return 1
    }
    rm -rf "$dir"
    mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial"
    key=/usr/share/keyrings/debian-archive-keyring.gpg
    private_sources "$kind" "$uri" "$suite" \
        "$([ ! -f "$key" ] || printf '[signed-by=%s] ' "$key")" >"$dir/sources.list"
    APT_OPTIONS=(-q -o "Dir::State::Lists=$dir/lists" -o "Dir::Cache=$dir/cache"
        -o "Dir::Etc::SourceList=$dir/sources.list" -o Dir::Etc::SourceParts=/dev/null
        -o Acquire::Languages=none -o Acquire::Retries=2
        -o APT::Update::Error-Mode=any -o APT::Sandbox::User=root)
    run_log_quietly "apt-$kind-$suite" apt-get "${APT_OPTIONS[@]}" update || {
        APT_ERROR=$(apt_error "apt-$kind-$suite")
        return 1
    }
}

private_sources() {
    case $1 in
    source) printf 'deb-src %s%s %s main\n' "$4" "$2" "$3" ;;
    binary) printf 'deb %s%s %s main\n' "$4" "$2" "$3" "$4" "$2" "${3%-backports}" ;;
    esac
}

# The suite with newer packages for this machine's release.
backports_suite() { (. /etc/os-release && printf '%s-backports' "${VERSION_CODENAME:-}"); }

run_log_quietly() {
    local log=$BUILD/log/$1.log
    shift
    mkdir -p "$BUILD/log"
    "$@" >"$log" 2>&1 </dev/null
}

apt_error() {
    grep -m1 '^E: ' "$BUILD/log/$1.log" 2>/dev/null || tail -n 1 "$BUILD/log/$1.log"
}
