# shellcheck shell=sh
# What every part of install.sh uses: how it speaks, how it runs what changes something, which Python it takes.

say() { printf '%s\n' "install.sh: $*" >&2; }
die() { say "error: $*"; exit 1; }
is_root() { [ "$(id -u)" -eq 0 ]; }
have() { command -v "$1" >/dev/null 2>&1; }
dry() { [ -n "$DRY_RUN" ]; }

# act COMMAND…: what changes something on this machine. With --dry-run it is told and not done.
act() {
    if dry; then
        say "would run: $*"
    else
        "$@"
    fi
}

# take_time COMMAND…: as act, for what takes long. It runs beside the shell, so that a signal is heeded at once and ends it too.
CHILD=""
take_time() {
    if dry; then
        say "would run: $*"
        return
    fi
    "$@" </dev/null &
    CHILD=$!
    if wait "$CHILD"; then code=0; else code=$?; fi
    CHILD=""
    return "$code"
}

# What has to be undone when the script ends before its time is put into UNDO; without it nothing that serves has been touched.
UNDO=""
interrupted() {
    trap '' HUP INT TERM
    if [ -n "$CHILD" ]; then
        kill -TERM "$CHILD" 2>/dev/null || true
        wait "$CHILD" 2>/dev/null || true
    fi
    say "interrupted${UNDO:+, and what was begun is undone}. The same command again goes on from here"
    exit "$1"
}
ended() {
    if [ "$1" -ne 0 ] && [ -n "$UNDO" ]; then $UNDO; fi
}
trap 'interrupted 129' HUP
trap 'interrupted 130' INT
trap 'interrupted 143' TERM
trap 'ended $?' EXIT

# need_packages NAME…: what is missing on Debian, Ubuntu and Raspberry Pi OS is installed when we are root, and named otherwise.
need_packages() {
    if is_root && have apt-get && [ -z "$OFFLINE" ]; then
        say "installing Debian packages: $*"
        export DEBIAN_FRONTEND=noninteractive
        take_time apt-get update -q >/dev/null || say "the package lists could not be refreshed; trying with those at hand"
        take_time apt-get install -y -q --no-install-recommends "$@" >/dev/null || die "apt-get could not install: $*"
    else
        die "missing: $*. Install with: sudo apt-get install -y $*"
    fi
}

works_as_python() {
    have "$1" && [ "$("$1" -c 'import sys; print((3, 10) <= sys.version_info < (3, 14))' 2>/dev/null)" = True ]
}

find_python() {
    for name in python3 python3.11 python3.12 python3.13 python3.10; do
        if works_as_python "$name"; then
            command -v "$name"
            return
        fi
    done
    return 1
}

# make_venv FOLDER: a virtual environment whose Python works; a broken one is made anew.
make_venv() {
    if ! works_as_python "$1/bin/python" || ! "$1/bin/python" -m pip --version >/dev/null 2>&1; then
        python=$(find_python) || { need_packages python3 python3-venv; python=$(find_python); } || die "Python 3.10 to 3.13 is needed"
        if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
            need_packages python3-venv
        fi
        say "making $1 with $("$python" --version)"
        rm -rf "$1"
        "$python" -m venv "$1"
        "$1/bin/python" -m pip install -q --upgrade 'pip>=23'
    fi
}

# is_jetson: whether this is one of NVIDIA's Tegra boards.
is_jetson() {
    [ -e /etc/nv_tegra_release ] || grep -q 'nvidia,tegra' /proc/device-tree/compatible 2>/dev/null
}
