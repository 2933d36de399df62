#!/bin/sh
# Installs reconvene-agent. `./install.sh help` says what it can do; every step says what it does before it does it.
set -eu

HERE=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
CONSTRAINTS="$HERE/.ci/constraints.txt"
DRY_RUN="" OFFLINE="" PURGE="" CONFIG_GIVEN="" BROKER="" WORKER_GIVEN="" WITHOUT_TORCH="" ARCH="" PYTHON_VERSION="" FOLDER=""
PREFIX="" RESTING="" WAIT_S=60

# shellcheck source=systemd/lib/common.sh
. "$HERE/systemd/lib/common.sh"
# shellcheck source=systemd/lib/torch.sh
. "$HERE/systemd/lib/torch.sh"
# shellcheck source=systemd/lib/settings.sh
. "$HERE/systemd/lib/settings.sh"
# shellcheck source=systemd/lib/pieces.sh
. "$HERE/systemd/lib/pieces.sh"
# shellcheck source=systemd/lib/checks.sh
. "$HERE/systemd/lib/checks.sh"
# shellcheck source=systemd/lib/packages.sh
. "$HERE/systemd/lib/packages.sh"
# shellcheck source=systemd/lib/versions.sh
. "$HERE/systemd/lib/versions.sh"
# shellcheck source=systemd/lib/trial.sh
. "$HERE/systemd/lib/trial.sh"
# shellcheck source=systemd/lib/remove.sh
. "$HERE/systemd/lib/remove.sh"
# shellcheck source=systemd/lib/wheels.sh
. "$HERE/systemd/lib/wheels.sh"

usage() {
    cat <<'TEXT'
usage: ./install.sh demo             set up .venv here and run the whole job once, live, on this machine
       ./install.sh test             set up .venv here and run every check and test, a process for each core (four at most)
       ./install.sh dev              set up .venv here with all that development needs
       sudo ./install.sh             install and start the systemd service, or bring it to this version
       sudo ./install.sh upgrade     the same, but only where it is installed
       sudo ./install.sh uninstall   remove it; configuration and state are kept, unless --purge is given
       ./install.sh bundle-wheels --arch ARCH --python VERSION DIR
                                     put all that an installation without a network needs into the folder DIR

The service:
  --config FILE        use this configuration
  --broker URL         set broker.url in the configuration
  --offline DIR        install from a folder that bundle-wheels has made, without a network
  --worker-python EXE  the worker takes torch from this interpreter, and torch is not installed (found by itself on a Jetson)
  --prefix DIR         where the versions lie (/opt/reconvene-agent)
  --wait SECONDS       how long the service may take to come up; a version that does not is taken back (60)
  --dry-run            tell every step and change nothing

bundle-wheels:
  --arch ARCH          aarch64 or x86_64
  --python VERSION     of the board: 3.10 to 3.13
  --without-torch      for a board that has its own

What follows demo and test is handed on: ./install.sh demo --out DIR, or to pytest: ./install.sh test tests/core -k topics -n 0
TEXT
}

# --- in this checkout -------------------------------------------------------------------------------------------------

# set_up EXTRAS: .venv with this checkout in it. Finished once, it is not done again until something it rests on changes.
set_up() {
    [ -d "$HERE/agent" ] || die "that needs the whole repository, and $HERE holds only what the service needs"
    venv="$HERE/.venv"
    make_venv "$venv"
    wanted="$1 $("$venv/bin/python" --version) $(cat "$HERE/pyproject.toml" "$CONSTRAINTS" | cksum)"
    stamp="$venv/.set-up-$(printf '%s' "$1" | tr ',' '-')"
    if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && [ -x "$venv/bin/reconvene-agent" ]; then
        return
    fi
    install_torch "$venv"
    say "installing reconvene-agent and its libraries into .venv"
    take_time "$venv/bin/python" -m pip install -q --constraint "$CONSTRAINTS" --editable "${HERE}[$1]"
    printf '%s\n' "$wanted" >"$stamp"
}

demo() {
    set_up worker,demo
    exec "$HERE/.venv/bin/reconvene-agent" demo "$@"
}

test_packages() {
    PATH="$PATH:/usr/sbin:/sbin"
    missing=""
    have mosquitto || missing="mosquitto"
    have openssl || missing="$missing openssl"
    if is_root && have apt-get; then # the service is tested in a guest, which only root can boot
        have systemd-nspawn || missing="$missing systemd-container"
        have debootstrap || missing="$missing debootstrap"
    fi
    # shellcheck disable=SC2086  # a list of packages
    [ -z "$missing" ] || need_packages $missing
    set_up worker,demo,signing,test
}

run_tests() {
    test_packages
    bin="$HERE/.venv/bin"
    cd "$HERE"
    guest="${XDG_CACHE_HOME:-$HOME/.cache}/reconvene-agent/debian-bookworm"
    if is_root && have debootstrap && have systemd-nspawn; then
        # Whether it could be made, the tests say.
        tests/systemd/make_root.sh "$guest" >/dev/null 2>&1 &
    fi
    say "ruff, mypy, import contracts, shellcheck"
    "$bin/ruff" check .
    "$bin/ruff" format --check .
    "$bin/mypy"
    "$bin/lint-imports" --no-cache
    "$bin/shellcheck" -x -a install.sh .ci/run tests/systemd/*.sh tests/aarch64/*.sh
    wait
    say "tests"
    PATH="$bin:$PATH" "$bin/python" -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder "$@"
}

develop() {
    test_packages
    say "ready: . .venv/bin/activate"
}

# --- the service ------------------------------------------------------------------------------------------------------

install_service() {
    end_earlier_trial
    CURRENT=$(serving)
    if [ "$ACTION" = upgrade ] && [ -z "$CURRENT" ]; then die "nothing is installed in $PREFIX that could be upgraded: sudo ./install.sh"; fi
    decide_worker
    preflight
    umask 022
    version=$(version_to_come)
    build "$version"
    prepare_config "$PREFIX/versions/$version/bin/python"
    if [ "$CURRENT" = "$version" ] && nothing_differs; then
        say "$version is installed and runs; there is nothing to do"
        return
    fi
    if [ -n "$CURRENT" ]; then
        if systemd_runs && [ "$(systemctl is-active "$SERVICE")" = inactive ]; then RESTING=yes; fi
    fi
    if [ "$CURRENT" = "$version" ]; then say "putting $version in order"; else say "switching to $version${CURRENT:+ from $CURRENT}"; fi
    begin_trial "$version"
    if [ -n "$CURRENT" ] && ! dry; then UNDO=go_back; fi
    place_config
    switch_to "$version"
    settle
    finish "$version"
}

# settle: what a version that serves needs beside its own files.
settle() {
    act ln -sfn "$PREFIX/current/bin/reconvene-agent" "$COMMAND"
    own_config
    take_up_kept
    [ -n "$CURRENT" ] || act systemctl enable --quiet "$SERVICE"
}

# nothing_differs: whether what this version would put in place is there, and the service runs with it.
nothing_differs() {
    ! dry && [ -z "$CONFIG_DIFFERS" ] && pieces_agree "$PREFIX/versions/$CURRENT/service" && systemd_runs && systemctl is-active --quiet "$SERVICE"
}

# finish VERSION: start it and see whether it holds.
finish() {
    if ! systemd_runs; then
        UNDO=""
        close_trial
        say "systemd does not run here: the service starts with the next boot"
    elif [ -n "$RESTING" ]; then
        UNDO=""
        close_trial
        say "the service was stopped before, and stays so: sudo systemctl start $SERVICE"
    else
        say "starting the service"
        start_service
        if ! healthy; then
            complain "$1"
            if [ -n "$CURRENT" ] && [ "$CURRENT" != "$1" ]; then
                go_back
                [ -z "$BUILT" ] || discard "$1"
                die "the change to $1 was taken back"
            fi
            UNDO=""
            close_trial
            die "the service is installed and does not come up: sudo reconvene-agent doctor says what to do"
        fi
        UNDO=""
        close_trial
        say "the service runs; look at it with: reconvene-agent status"
    fi
    if [ -n "$CURRENT" ] && [ "$CURRENT" != "$1" ]; then
        left_behind "$CURRENT" "$1"
        keep_two "$1" "$CURRENT"
    fi
}

# --- what can be asked for --------------------------------------------------------------------------------------------

# value OPTION [TEXT]: what follows an option.
value() { [ $# -ge 2 ] && [ -n "$2" ] || die "$1 wants a value"; }

# here PATH: the same, whatever folder we go to.
here() { case $1 in /*) printf '%s\n' "$1" ;; *) printf '%s\n' "$PWD/$1" ;; esac; }

options() {
    while [ $# -gt 0 ]; do
        case $ACTION:$1 in
            service:--config | upgrade:--config) value "$@"; CONFIG_GIVEN=$(here "$2"); shift ;;
            service:--broker | upgrade:--broker) value "$@"; plain "$2" "$1"; BROKER=$2; shift ;;
            service:--offline | upgrade:--offline) value "$@"; OFFLINE=$(here "$2"); shift ;;
            service:--worker-python | upgrade:--worker-python) value "$@"; WORKER_GIVEN=$2; shift ;;
            service:--wait | upgrade:--wait) value "$@"; WAIT_S=$2; shift ;;
            service:--prefix | upgrade:--prefix | uninstall:--prefix) value "$@"; PREFIX=$2; shift ;;
            uninstall:--purge) PURGE=yes ;;
            bundle-wheels:--arch) value "$@"; ARCH=$2; shift ;;
            bundle-wheels:--python) value "$@"; PYTHON_VERSION=$2; shift ;;
            bundle-wheels:--without-torch) WITHOUT_TORCH=yes ;;
            *:--dry-run) DRY_RUN=yes ;;
            *:-h | *:--help) usage; exit 0 ;;
            bundle-wheels:[!-]*) [ -z "$FOLDER" ] || die "one folder, please: $FOLDER, or $1"; FOLDER=$(here "$1") ;;
            *) usage >&2; die "'$ACTION' does not know $1" ;;
        esac
        shift
    done
    # A folder that bundle-wheels has made installs from itself.
    [ -d "$HERE/agent" ] || [ -n "$OFFLINE" ] || OFFLINE=$HERE
    [ -z "$CONFIG_GIVEN" ] || [ -r "$CONFIG_GIVEN" ] || die "$CONFIG_GIVEN cannot be read"
    [ -z "$OFFLINE" ] || [ -d "$OFFLINE" ] || die "$OFFLINE is no folder"
    [ -z "$WORKER_GIVEN" ] || works_as_python "$WORKER_GIVEN" || die "$WORKER_GIVEN is no Python 3.10 to 3.13"
    case $WAIT_S in '' | *[!0-9]*) die "--wait wants a number of seconds" ;; esac
    choose_prefix
    # Whoever started us may be in a folder that the service's user cannot enter, or that goes away.
    cd /
}

# choose_prefix: the one given, else the one of what is installed, else the usual one; never a folder with anything else in it.
choose_prefix() {
    there=$(readlink "$COMMAND" 2>/dev/null) || there=""
    case $there in */current/bin/reconvene-agent) there=${there%/current/bin/reconvene-agent} ;; *) there="" ;; esac
    PREFIX=${PREFIX:-${there:-/opt/reconvene-agent}}
    PREFIX=${PREFIX%/}
    case $PREFIX in /?*) ;; *) die "--prefix wants an absolute path, and not /" ;; esac
    case $PREFIX in *[!A-Za-z0-9/._+-]*) die "--prefix wants a path of letters, digits and /._+-" ;; esac
    if [ -n "$there" ] && [ "$there" != "$PREFIX" ]; then die "it is installed in $there; to move it, uninstall it there first"; fi
    if [ -d "$PREFIX" ] && [ ! -d "$PREFIX/versions" ] && [ -n "$(find "$PREFIX" -mindepth 1 -maxdepth 1)" ]; then
        die "$PREFIX holds something else; choose another folder with --prefix"
    fi
}

# alone: no second installation at the same time.
alone() {
    if dry || ! is_root; then return; fi
    exec 9>/run/reconvene-agent-install.lock
    if flock -n 9; then return; fi
    on_trial || die "another install.sh is at work"
    say "waiting until the trial of a version has ended"
    flock -w 600 9 || die "another install.sh is at work"
}

case ${1:-} in
    '' | --*) ACTION=service ;;
    *) ACTION=$1; shift ;;
esac
case $ACTION in
    demo) demo "$@" ;;
    test) run_tests "$@" ;;
    dev) develop ;;
    service | upgrade) options "$@"; alone; install_service ;;
    end-trial) PREFIX=${HERE%/trial}; end_trial ;; # called by whoever holds the lock, as PREFIX/trial/install.sh
    uninstall) options "$@"; alone; uninstall; dry || rm -f /run/reconvene-agent-install.lock ;;
    bundle-wheels)
        options "$@"
        [ -n "$FOLDER" ] || die "name the folder: ./install.sh bundle-wheels --arch aarch64 --python 3.11 DIR"
        bundle_wheels "$FOLDER"
        ;;
    help | -h) usage ;;
    *) usage >&2; die "there is no '$ACTION'" ;;
esac
