# SPDX-License-Identifier: GPL-2.0-or-later
# Downloads that go on where an earlier one broke: source it.
# shellcheck shell=bash disable=SC2034

DOWNLOAD_TRIES=3
DOWNLOAD_PAUSE=${DOWNLOAD_PAUSE-2} # seconds
DOWNLOAD_ERROR=

# download URL FILE: what has come stays in FILE.part, also for the next run.
# Without success DOWNLOAD_ERROR says what to do.
download() {
    local url=$1 file=$2 part=$2.part try answer code=0
    DOWNLOAD_ERROR=
    command -v curl >/dev/null || {
        DOWNLOAD_ERROR="there is no curl: apt-get install curl"
        return 1
    }
    for ((try = 1; try <= DOWNLOAD_TRIES; try++)); do
        code=0
        answer=$(ask_server "$url" "$part") || code=$?
        case $code in
        0) mv "$part" "$file" && return ;;
        33 | 36) rm -f "$part" ;; # the server cannot go on in the middle
        22)
            [ "$answer" = 416 ] || break
            rm -f "$part"
            ;;
        5 | 6 | 7 | 16 | 18 | 28 | 52 | 55 | 56 | 92) [ "$try" -eq "$DOWNLOAD_TRIES" ] || sleep "$DOWNLOAD_PAUSE" ;;
        *) break ;;
        esac
    done
    DOWNLOAD_ERROR=$(download_error "$code" "$answer" "$part")
    return 1
}

# Prints the status of HTTP.  A server that sends nothing for a minute has died.
ask_server() {
    local from=()
    [ ! -s "$2" ] || from=(--continue-at "$(stat -c %s "$2")")
    curl --disable --fail --silent --location --globoff \
        --proto '=http,https,file' --connect-timeout 20 \
        --speed-limit 1 --speed-time 60 "${from[@]}" \
        --output "$2" --write-out '%{http_code}' "$1" 2>/dev/null
}

# download_error CODE STATUS FILE: the exit code of curl, for a person.
download_error() {
    case $1 in
    1 | 3) printf 'this is no address of a file: write http://, https:// or file:// and a path' ;;
    5 | 6) printf 'the name of the server is not known here: check its spelling, this machine'\''s name service and its proxy' ;;
    7) printf 'no server answers there: check host and port, and whether a firewall is between' ;;
    22) http_error "$2" ;;
    28) printf 'the server was silent for too long: try again later, or use another place' ;;
    35 | 51 | 58 | 60 | 77) printf 'the certificate of the server is not trusted here: apt-get install ca-certificates, or check the clock' ;;
    37) printf 'no such file: check the path' ;;
    16 | 18 | 52 | 55 | 56 | 92) broken "$3" ;;
    23) printf 'cannot write %s: free some space there, or correct its owner' "$3" ;;
    *) printf 'curl ends with %s: see EXIT CODES in man curl' "$1" ;;
    esac
}

http_error() {
    case $1 in
    404 | 410) printf 'HTTP %s, it is not there: check the address, or the place no longer has this release' "$1" ;;
    401 | 403 | 407) printf 'HTTP %s, access is refused: put user and password into the address, or check the proxy' "$1" ;;
    *) printf 'HTTP %s, the server has a problem of its own: try again later, or use another place' "$1" ;;
    esac
}

broken() {
    printf 'the connection broke %d times, after %d bytes in all: run make again, it goes on from there' \
        "$DOWNLOAD_TRIES" "$(stat -c %s "$1" 2>/dev/null || printf 0)"
}
