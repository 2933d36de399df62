# shellcheck shell=sh
# What is looked at before anything is changed. Everything that is missing is told at once.

LEAST_MEMORY_MB=384
SMALL_MEMORY_MB=900
DISK_WITH_TORCH_MB=2500
DISK_WITHOUT_TORCH_MB=400

PROBLEMS=""
lacks() {
    PROBLEMS="$PROBLEMS
  - $*"
}

# service_python: the Python of the service. It must be one that the service's user reaches, which those in homes are not.
service_python() {
    for folder in /usr/bin /usr/local/bin; do
        for name in python3 python3.11 python3.12 python3.13 python3.10; do
            if works_as_python "$folder/$name"; then
                printf '%s\n' "$folder/$name"
                return
            fi
        done
    done
    return 1
}

# existing_part PATH: PATH, or the nearest folder above it that is there.
existing_part() {
    part=$1
    while [ ! -d "$part" ]; do part=$(dirname "$part"); done
    printf '%s\n' "$part"
}

check_machine() {
    [ "$(uname -s)" = Linux ] || lacks "Linux; this is $(uname -s)"
    case $(uname -m) in
        x86_64 | aarch64) ;;
        arm*) lacks "a 64-bit system: there is no PyTorch for $(uname -m). Raspberry Pi OS comes as 64-bit for the Raspberry Pi 3, 4, 5 and Zero 2" ;;
        *) lacks "an aarch64 or x86_64 processor; this is $(uname -m)" ;;
    esac
    getconf GNU_LIBC_VERSION >/dev/null 2>&1 || lacks "the GNU C library: PyTorch and ONNX Runtime are built for it alone"
}

check_python() {
    PYTHON=$(service_python) || PYTHON=""
    if [ -z "$PYTHON" ]; then
        lacks "Python 3.10 to 3.13 in /usr/bin: sudo apt-get install -y python3 python3-venv"
        return
    fi
    "$PYTHON" -c 'import ensurepip, venv' >/dev/null 2>&1 || lacks "venv for $PYTHON: sudo apt-get install -y python3-venv"
    "$PYTHON" -c 'import sys; sys.exit(sys.maxsize < 2**32)' || lacks "a 64-bit system: $PYTHON is a 32-bit program, though the kernel is not"
}

check_memory() {
    total=$(awk '/^(MemTotal|SwapTotal):/ { kib += $2 } END { print int(kib / 1024) }' /proc/meminfo)
    if [ "$total" -lt "$LEAST_MEMORY_MB" ]; then
        lacks "$LEAST_MEMORY_MB MiB of memory, swap included; there are $total MiB"
    elif [ "$total" -lt "$SMALL_MEMORY_MB" ]; then
        say "note: with $total MiB of memory and swap only small models can be trained here"
    fi
}

check_disk() {
    if [ -n "$PYTHON" ] && [ -e "$PREFIX/versions/$(version_to_come)/$COMPLETE" ]; then return; fi
    if [ -n "$OWN_TORCH" ]; then needed=$DISK_WITH_TORCH_MB; else needed=$DISK_WITHOUT_TORCH_MB; fi
    where=$(existing_part "$PREFIX/versions")
    free=$(df -Pk "$where" | awk 'NR == 2 { print int($4 / 1024) }')
    [ "$free" -ge "$needed" ] || lacks "$needed MiB of free disk at $where; there are $free MiB"
}

# preflight: go on only where everything that is needed is there. Python's packages are installed, where that can be done.
preflight() {
    if ! dry && is_root && have apt-get && [ -z "$OFFLINE" ]; then
        if ! python=$(service_python) || ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then need_packages python3 python3-venv; fi
    fi
    is_root || dry || lacks "root's rights: sudo ./install.sh"
    check_machine
    check_python
    have systemctl || lacks "systemd: the agent is installed as its service. Without one: pip install '.[worker]' and reconvene-agent run"
    check_memory
    check_disk
    [ -z "$PROBLEMS" ] || die "this machine lacks:$PROBLEMS"
}
