#!/bin/sh
# Installs reconvene-agent. `./install.sh help` says what it can do; every step says what it does before it does it.
set -eu

HERE=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
CONSTRAINTS="$HERE/.ci/constraints.txt"
TORCH_CPU_INDEX="https://download.pytorch.org/whl/cpu"
PREFIX=/opt/reconvene-agent
CONFIG_DIR=/etc/reconvene-agent
SERVICE=reconvene-agent

say() { printf '%s\n' "install.sh: $*" >&2; }
die() { say "error: $*"; exit 1; }
is_root() { [ "$(id -u)" -eq 0 ]; }
have() { command -v "$1" >/dev/null 2>&1; }

usage() {
    cat <<'TEXT'
usage: ./install.sh demo          set up .venv here and run the whole job once, live, on this machine
       ./install.sh test          set up .venv here and run every check and test, a process for each core (four at most)
       sudo ./install.sh          install and start the systemd service

Options are handed on: ./install.sh demo --out DIR, or to pytest: ./install.sh test tests/core -k topics -n 0
TEXT
}

# --- Python -----------------------------------------------------------------------------------------------------------

# What is missing on Debian, Ubuntu and Raspberry Pi OS is installed when we are root, and named otherwise.
need_packages() {
    if is_root && have apt-get; then
        say "installing Debian packages: $*"
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -q >/dev/null || say "the package lists could not be refreshed; trying with those at hand"
        apt-get install -y -q --no-install-recommends "$@" >/dev/null || die "apt-get could not install: $*"
    else
        die "missing: $*. Install with: sudo apt-get install -y $*"
    fi
}

works_as_python() {
    have "$1" && "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' >/dev/null 2>&1
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

# --- packages ---------------------------------------------------------------------------------------------------------

torch_requirement() {
    "$1/bin/python" - "$CONSTRAINTS" <<'PYTHON'
import platform, sys
for line in open(sys.argv[1]):
    requirement, _, marker = line.partition(";")
    if requirement.startswith("torch==") and (not marker.strip() or platform.machine() in marker):
        print(requirement.strip())
        break
else:
    print("torch>=2.6,<3")
PYTHON
}

# install_torch VENV: the build without CUDA. A plain request can pull gigabytes of CUDA on x86-64.
install_torch() {
    if "$1/bin/python" -c 'import torch' >/dev/null 2>&1; then
        return
    fi
    torch=$(torch_requirement "$1")
    if "$1/bin/python" -c "import urllib.request as u; u.urlopen('$TORCH_CPU_INDEX/torch/', timeout=10)" >/dev/null 2>&1; then
        say "installing $torch (CPU build) from $TORCH_CPU_INDEX"
        "$1/bin/python" -m pip install -q --extra-index-url "$TORCH_CPU_INDEX" --constraint "$CONSTRAINTS" "$torch$(cpu_suffix)" numpy
        return
    fi
    say "installing $torch from where pip is configured to look; $TORCH_CPU_INDEX cannot be reached"
    plan=$("$1/bin/python" -m pip install -q --dry-run --report - "$torch") || die "pip finds no $torch"
    if printf '%s' "$plan" | grep -Eq '"name": "(nvidia|cuda)-'; then
        die "pip would install CUDA with $torch. Put a CPU build where pip can find it, or install torch into $1 yourself, and run this again"
    fi
    "$1/bin/python" -m pip install -q --constraint "$CONSTRAINTS" "$torch" numpy
}

# The index of CPU builds marks them on x86-64, so that they cannot be mistaken for the others.
cpu_suffix() {
    [ "$(uname -m)" = x86_64 ] && printf '+cpu'
    return 0
}

# set_up EXTRAS: .venv with this checkout in it. Finished once, it is not done again until something it rests on changes.
set_up() {
    venv="$HERE/.venv"
    make_venv "$venv"
    wanted="$1 $("$venv/bin/python" --version) $(cat "$HERE/pyproject.toml" "$CONSTRAINTS" | cksum)"
    stamp="$venv/.set-up-$(printf '%s' "$1" | tr ',' '-')"
    if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && [ -x "$venv/bin/reconvene-agent" ]; then
        return
    fi
    install_torch "$venv"
    say "installing reconvene-agent and its libraries into .venv"
    "$venv/bin/python" -m pip install -q --constraint "$CONSTRAINTS" --editable "${HERE}[$1]"
    printf '%s\n' "$wanted" >"$stamp"
}

# --- what can be asked for --------------------------------------------------------------------------------------------

demo() {
    set_up worker,demo
    exec "$HERE/.venv/bin/reconvene-agent" demo "$@"
}

run_tests() {
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
    "$bin/shellcheck" install.sh .ci/run tests/systemd/*.sh
    wait
    say "tests"
    PATH="$bin:$PATH" "$bin/python" -m pytest -n logical --maxprocesses 4 --dist loadgroup --no-loadscope-reorder "$@"
}

install_service() {
    is_root || { usage; die "the service is installed by root: sudo ./install.sh"; }
    [ -d /run/systemd/system ] || { usage; die "systemd does not run here, so there is no service to install"; }
    make_venv "$PREFIX/venv"
    install_torch "$PREFIX/venv"
    say "installing reconvene-agent into $PREFIX"
    "$PREFIX/venv/bin/python" -m pip install -q --upgrade --constraint "$CONSTRAINTS" "${HERE}[worker,signing]"
    # Without bytecode at hand every start of the daemon compiles it anew, in memory.
    "$PREFIX/venv/bin/python" -m compileall -q "$PREFIX/venv/lib" >/dev/null || true
    ln -sf "$PREFIX/venv/bin/reconvene-agent" /usr/local/bin/reconvene-agent
    if ! id "$SERVICE" >/dev/null 2>&1; then
        say "adding the system user $SERVICE"
        useradd --system --user-group --no-create-home --home-dir /var/lib/reconvene-agent --shell /usr/sbin/nologin "$SERVICE"
    fi
    if [ ! -e "$CONFIG_DIR/config.toml" ]; then
        say "writing $CONFIG_DIR/config.toml; set the broker there"
        mkdir -p "$CONFIG_DIR"
        install -m 0640 -g "$SERVICE" "$HERE/systemd/config.toml" "$CONFIG_DIR/config.toml"
    fi
    install -m 0644 "$HERE/systemd/$SERVICE.service" "/etc/systemd/system/$SERVICE.service"
    systemctl daemon-reload
    systemctl enable --quiet "$SERVICE"
    systemctl restart "$SERVICE"
    say "the service runs; look at it with: reconvene-agent status"
}

case "${1:-service}" in
    demo) shift; demo "$@" ;;
    test) shift; run_tests "$@" ;;
    service) install_service ;;
    help | -h | --help) usage ;;
    *) usage >&2; die "there is no '$1'" ;;
esac
