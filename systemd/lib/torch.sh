# shellcheck shell=sh
# PyTorch: which build, and from where.

TORCH_CPU_INDEX="https://download.pytorch.org/whl/cpu"

# torch_requirement MACHINE: the release that was tested on this architecture, as the constraints name it. The index of CPU
# builds marks them on x86-64, so that they cannot be mistaken for those with CUDA.
torch_requirement() {
    found=$(sed -n "s/^\(torch==[^ ;]*\) *; *platform_machine == \"$1\".*/\1/p" "$CONSTRAINTS")
    [ -n "$found" ] || die "$CONSTRAINTS names no torch for $1"
    if [ "$1" = x86_64 ]; then suffix=+cpu; else suffix=""; fi
    printf '%s%s\n' "$found" "$suffix"
}

# cpu_index_answers PYTHON: whether the index of CPU builds can be reached.
cpu_index_answers() {
    "$1" -c "import urllib.request as u; u.urlopen('$TORCH_CPU_INDEX/torch/', timeout=10)" >/dev/null 2>&1
}

# install_torch VENV: the build without CUDA. A plain request can pull gigabytes of CUDA on x86-64.
install_torch() {
    if ! dry && "$1/bin/python" -c 'import torch' >/dev/null 2>&1; then
        return
    fi
    torch=$(torch_requirement "$(uname -m)")
    if dry; then
        say "would install $torch (CPU build) from $TORCH_CPU_INDEX"
        return
    fi
    if cpu_index_answers "$1/bin/python"; then
        say "installing $torch (CPU build) from $TORCH_CPU_INDEX"
        take_time "$1/bin/python" -m pip install -q --extra-index-url "$TORCH_CPU_INDEX" --constraint "$CONSTRAINTS" "$torch" numpy
        return
    fi
    torch=${torch%+cpu}
    say "installing $torch from where pip is configured to look; $TORCH_CPU_INDEX cannot be reached"
    plan=$("$1/bin/python" -m pip install -q --dry-run --report - "$torch") || die "pip finds no $torch"
    if printf '%s' "$plan" | grep -Eq '"name": "(nvidia|cuda)-'; then
        die "pip would install CUDA with $torch. Put a CPU build where pip can find it, or install torch into $1 yourself, and run this again"
    fi
    take_time "$1/bin/python" -m pip install -q --constraint "$CONSTRAINTS" "$torch" numpy
}
