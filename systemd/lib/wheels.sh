# shellcheck shell=sh
# A folder of wheels for boards without a network: everything that --offline needs, this installer included.

# bundle_wheels FOLDER: the wheels for ARCH and PYTHON_VERSION, fetched by whatever machine is at hand.
bundle_wheels() {
    folder=$1
    case $ARCH in aarch64 | x86_64) ;; *) die "--arch wants aarch64 or x86_64" ;; esac
    case $PYTHON_VERSION in 3.10 | 3.11 | 3.12 | 3.13) ;; *) die "--python wants 3.10, 3.11, 3.12 or 3.13" ;; esac
    python=$(find_python) || die "Python 3.10 to 3.13 is needed"
    torch=$(torch_requirement "$ARCH")
    if [ -n "$WITHOUT_TORCH" ]; then set -- "[signing]"; else set -- "[worker,signing]" "$torch"; fi
    if dry; then
        say "would fetch reconvene-agent$1 for $ARCH and Python $PYTHON_VERSION${2:+, with $2 from $TORCH_CPU_INDEX,} into $folder"
        return
    fi
    mkdir -p "$folder"
    if [ -n "$(find "$folder" -mindepth 1 -maxdepth 1)" ]; then die "$folder is not empty"; fi
    folder=$(cd "$folder" && pwd)
    work=$(mktemp -d)
    UNDO=remove_work
    take_time "$python" -m venv "$work/venv"
    take_time "$work/venv/bin/python" -m pip install -q --upgrade 'pip>=23'
    say "making the wheel of reconvene-agent"
    take_time "$work/venv/bin/python" -m pip wheel -q --no-deps --wheel-dir "$folder" "$HERE"
    say "fetching the wheels for $ARCH and Python $PYTHON_VERSION"
    set -- "$(echo "$folder"/reconvene_agent-*.whl)$1" ${2:+"$2"}
    if [ $# -eq 2 ]; then
        if cpu_index_answers "$work/venv/bin/python"; then
            set -- --extra-index-url "$TORCH_CPU_INDEX" "$@"
        else
            say "$TORCH_CPU_INDEX cannot be reached; taking ${2%+cpu} from where pip is configured to look"
            set -- "$1" "${2%+cpu}"
        fi
    fi
    take_time "$work/venv/bin/python" "$HERE/systemd/lib/pip_for.py" "$ARCH" "$PYTHON_VERSION" "$CONSTRAINTS" "$folder" "$@"
    if [ -n "$(find "$folder" -name 'nvidia_*.whl')" ]; then die "pip has fetched CUDA with torch: put a CPU build where pip can find it"; fi
    mkdir "$folder/.ci"
    cp "$CONSTRAINTS" "$folder/.ci"
    cp -R "$HERE/install.sh" "$HERE/systemd" "$folder"
    remove_work
    UNDO=""
    say "$(find "$folder" -name '*.whl' | wc -l) wheels, $(du -sm "$folder" | cut -f1) MiB. On the board: sudo $(basename "$folder")/install.sh --offline $(basename "$folder")"
}

remove_work() { rm -rf "$work"; }
