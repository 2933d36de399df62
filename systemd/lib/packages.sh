# shellcheck shell=sh
# What is installed into a version's environment, and whether its worker can load all that it needs.

# the_wheel: the agent's wheel in the folder of wheels.
the_wheel() {
    set -- "$OFFLINE"/reconvene_agent-*.whl
    [ -e "$1" ] || die "$OFFLINE holds no wheel of reconvene-agent; make the folder with: ./install.sh bundle-wheels"
    [ $# -eq 1 ] || die "$OFFLINE holds several wheels of reconvene-agent; leave the one that is to be installed"
    printf '%s\n' "$1"
}

# pip_into PYTHON ARGUMENT…: pip, from the folder of wheels alone where there is one.
pip_into() {
    interpreter=$1
    shift
    if [ -n "$OFFLINE" ]; then
        take_time "$interpreter" -m pip install -q --no-compile --no-index --find-links "$OFFLINE" "$@"
    else
        take_time "$interpreter" -m pip install -q --no-compile "$@"
    fi
}

# install_packages VENV: the agent, with torch and its company only where no other interpreter has them.
install_packages() {
    if [ -n "$OWN_TORCH" ]; then extras=worker,signing; else extras=signing; fi
    if [ -n "$OFFLINE" ]; then
        say "installing reconvene-agent[$extras] from the wheels in $OFFLINE"
        pip_into "$1/bin/python" --constraint "$CONSTRAINTS" "$(the_wheel)[$extras]"
        return
    fi
    pip_into "$1/bin/python" --upgrade 'pip>=23'
    if [ -n "$OWN_TORCH" ]; then install_torch "$1"; fi
    say "installing reconvene-agent[$extras]"
    pip_into "$1/bin/python" --constraint "$CONSTRAINTS" "${HERE}[$extras]"
}

# --- the worker in an interpreter of its own --------------------------------------------------------------------------

# Beside the configuration, and kept with it: where the worker's environment comes from.
BASE_FILE=/etc/reconvene-agent/worker-python

# usable_torch PYTHON: whether it loads a torch that the agent can use, as anybody would who is not its owner.
usable_torch() {
    HOME=/nonexistent "$1" -s -c 'import re, sys, torch
have = tuple(map(int, re.findall(r"\d+", torch.__version__)[:2]))
print(torch.__version__)
sys.exit(not (2, 6) <= have < (3, 0))' 2>/dev/null
}

# decide_worker: whether torch is installed with the agent (OWN_TORCH), or comes from the interpreter WORKER_BASE; by the option,
# else by the configuration that is there, else by what a Jetson brings along.
decide_worker() {
    WORKER_BASE=""
    WORKER_PYTHON=""
    OWN_TORCH=yes
    ours=$PREFIX/current/worker/bin/python
    configured=""
    if [ -n "$CONFIG_GIVEN" ]; then configured=$(setting "$CONFIG_GIVEN" worker python)
    elif [ -r "$CONFIG_FILE" ]; then configured=$(setting "$CONFIG_FILE" worker python)
    fi
    if [ -n "$WORKER_GIVEN" ]; then
        torch=$(usable_torch "$WORKER_GIVEN") || die "$WORKER_GIVEN has no torch that can be used${torch:+: $torch}; 2.6 or later is needed"
        WORKER_BASE=$WORKER_GIVEN
    elif [ "$configured" = "$ours" ]; then
        WORKER_BASE=$(cat "$BASE_FILE" 2>/dev/null) || WORKER_BASE=/usr/bin/python3
        usable_torch "$WORKER_BASE" >/dev/null || die "$WORKER_BASE, which the worker used, has no torch any more that can be used: name another with --worker-python, or take worker.python out of $CONFIG_FILE"
    elif [ -n "$configured" ]; then
        say "the configuration names the worker's interpreter, $configured; it is left as it is, and torch is not installed"
        OWN_TORCH=""
    elif is_jetson && { [ -n "$CONFIG_GIVEN" ] || [ ! -e "$CONFIG_FILE" ]; }; then
        if torch=$(usable_torch /usr/bin/python3); then
            say "a Jetson whose own torch is $torch: the worker uses that"
            WORKER_BASE=/usr/bin/python3
        else
            say "note: a Jetson, but /usr/bin/python3 has no torch that can be used${torch:+ ($torch)}; the CPU build is installed, and training takes the processor"
        fi
    fi
    if [ -n "$WORKER_BASE" ]; then
        OWN_TORCH=""
        WORKER_PYTHON=$ours
    fi
}

# install_worker VENV: an environment over the interpreter's own packages. Of those nothing is changed, and torch is never asked for.
install_worker() {
    say "making the worker's environment over the packages of $WORKER_BASE"
    take_time "$WORKER_BASE" -m venv "$1/worker"
    if dry; then
        say "would install what $WORKER_BASE lacks of reconvene-agent[worker], torch left out"
        return
    fi
    site=$("$1/worker/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    "$WORKER_BASE" -s -c 'import sys; print("\n".join(p for p in sys.path if p.endswith("-packages")))' >"$site/zz_beneath.pth"
    # The agent itself, as the daemon has it.
    cp -R "$1"/lib/python3*/site-packages/reconvene_agent "$1"/lib/python3*/site-packages/reconvene_agent-*.dist-info "$site"
    lacking=$("$1/worker/bin/python" "$HERE/systemd/lib/lacking.py" "$CONSTRAINTS" "$TMPDIR/constraints.txt")
    if [ -n "$lacking" ]; then
        say "installing what it lacks: $(printf '%s' "$lacking" | tr '\n' ' ')"
        # shellcheck disable=SC2086  # a list of requirements
        pip_into "$1/worker/bin/python" --constraint "$TMPDIR/constraints.txt" $lacking
    fi
    compile "$1" "$1/worker/lib"
}

# check_worker VENV: let the worker's interpreter load everything, as the service's user.
check_worker() {
    if [ -n "$WORKER_BASE" ]; then interpreter=$1/worker/bin/python; else interpreter=$1/bin/python; fi
    if [ -z "$WORKER_BASE$OWN_TORCH" ]; then interpreter=$configured; fi
    if dry; then
        say "would check that $interpreter loads all that a run needs"
        return
    fi
    say "checking that $interpreter loads all that a run needs"
    if ! take_time as_account "$interpreter" -m reconvene_agent.worker.inspection >"$1/.inspection" 2>&1 ||
        grep -Eq '"(missing|broken)"' "$1/.inspection" || ! grep -q '"peak_mb"' "$1/.inspection"; then
        sed 's/^/    /' "$1/.inspection" >&2
        die "the worker's interpreter does not load all that it needs; nothing was switched"
    fi
}

as_account() (cd / && exec setpriv --reuid "$ACCOUNT" --regid "$ACCOUNT" --init-groups env PYTHONSAFEPATH=1 HOME=/nonexistent "$@")
