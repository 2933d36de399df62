# shellcheck shell=sh
# Versions side by side: PREFIX/versions/ID is one environment, PREFIX/current points at the one that serves.

CURRENT=""     # the id of the version that serves, before and while something is changed
COMPLETE=.complete
BUILT=""       # whether this run has made the version that it installs

serving() { readlink "$PREFIX/current" 2>/dev/null | sed 's#.*/##'; }

digest() { sha256sum | cut -c1-8; }

# version_to_come: the id of what would be installed now: its version, and a hash of all that it is made of.
version_to_come() {
    if [ -n "$OFFLINE" ]; then
        wheel=$(the_wheel)
        version=$(basename "$wheel" | cut -d- -f2)
        sources=$(sha256sum <"$wheel")
    else
        version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' "$HERE/agent/reconvene_agent/__init__.py")
        sources=$(cd "$HERE" && find agent device_profiles pyproject.toml -type f ! -name '*.pyc' -exec sha256sum {} + | LC_ALL=C sort)
    fi
    rest=$(cd "$HERE" && find systemd .ci/constraints.txt -type f -exec sha256sum {} + | LC_ALL=C sort)
    printf '%s-%s\n' "$version" "$(printf '%s\n' "$sources" "$rest" "$("$PYTHON" --version)" "$WORKER_BASE" "$OWN_TORCH" "$PREFIX" | digest)"
}

# build ID: make the version's environment, whole, where nothing uses it yet. What an interrupted run left is made anew.
build() {
    made=$PREFIX/versions/$1
    if [ -e "$made/$COMPLETE" ]; then
        say "$1 is there already"
        return
    fi
    say "making $made with $("$PYTHON" --version)"
    BUILT=yes
    act rm -rf "$made"
    # pip unpacks where TMPDIR says, and /tmp may be a small part of the memory.
    export TMPDIR="$made/tmp" PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
    act mkdir -p "$TMPDIR"
    take_time "$PYTHON" -m venv "$made"
    install_packages "$made"
    if [ -n "$WORKER_BASE" ]; then install_worker "$made"; fi
    act rm -rf "$TMPDIR"
    unset TMPDIR PIP_NO_CACHE_DIR
    compile "$made" "$made/lib"
    act cp -R "$HERE/systemd" "$made/service"
    act rm -rf "$made/service/lib"
    # The worker is tried as the service's user.
    make_account "$HERE/systemd"
    check_worker "$made"
    # The link must never reach the disk before that to which it points.
    act sync -f "$PREFIX/versions"
    act touch "$made/$COMPLETE"
    act sync -f "$PREFIX/versions"
}

# compile VENV FOLDER: without bytecode at hand every start compiles anew, in memory. It names the files as the service will know them.
compile() {
    say "compiling $2"
    take_time "$1/bin/python" -m compileall -q -j 2 -x '/site-packages/pip/' -s "$1" -p "$PREFIX/current" "$2" >/dev/null || true
}

# point_at ID: let this version serve, in one step.
point_at() {
    act ln -sfn "versions/$1" "$PREFIX/current.new"
    act mv -T "$PREFIX/current.new" "$PREFIX/current"
    act sync -f "$PREFIX"
}

# switch_to ID: stop, put the version and its pieces in place, start. The agent must not run on while its files change under it.
switch_to() {
    stop_service
    if dry; then pieces=$HERE/systemd; else pieces=$PREFIX/versions/$1/service; fi
    install_pieces "$pieces"
    act sync -f /etc/systemd/system
    point_at "$1"
}

# healthy: whether the service is up, answers, and is after some seconds still the same process.
healthy() {
    if dry; then say "would wait up to $WAIT_S s until the service is active and reconvene-agent status answers"; return; fi
    deadline=$(($(date +%s) + WAIT_S))
    steady=0
    process=0
    while [ "$(date +%s)" -lt "$deadline" ]; do
        now=$(systemctl show --property=MainPID --value "$SERVICE" 2>/dev/null) || now=0
        if systemctl is-active --quiet "$SERVICE" && answers && [ "${now:-0}" != 0 ]; then
            if [ "$now" = "$process" ]; then steady=$((steady + 1)); else steady=0; fi
            process=$now
            [ "$steady" -lt 3 ] || return 0
        else
            steady=0
        fi
        sleep 1 &
        CHILD=$!
        wait "$CHILD" || true
        CHILD=""
    done
    return 1
}

# A status that names problems (exit code 1) is an answer too.
answers() {
    "$PREFIX/current/bin/reconvene-agent" status --config "$CONFIG_FILE" --json >/dev/null 2>&1 && return 0
    [ $? -eq 1 ]
}

complain() {
    say "$1 has not come up within $WAIT_S s. Its last words:"
    journalctl -u "$SERVICE" -n 25 --no-pager -o cat 2>/dev/null | sed 's/^/    /' >&2 || true
}

# go_back: let the version serve again that did before, as it was. It may be cut short too: the trial ends with it, and not before.
go_back() {
    UNDO=""
    say "going back to $CURRENT"
    take_config_back
    switch_to "$CURRENT"
    if [ -n "$RESTING" ] || ! systemd_runs; then
        close_trial
        say "$CURRENT is in place again"
        return
    fi
    start_service
    close_trial
    if healthy; then
        say "$CURRENT serves again"
    else
        say "error: $CURRENT does not come up either: journalctl -u $SERVICE says why; sudo reconvene-agent doctor what to do"
    fi
}

# keep_two ID…: remove every version but these.
keep_two() {
    for folder in "$PREFIX"/versions/*; do
        case " $* " in
            *" ${folder##*/} "*) ;;
            *) [ ! -d "$folder" ] || { say "removing ${folder##*/}"; discard "${folder##*/}"; } ;;
        esac
    done
}

# discard ID: remove a version. From the first moment on it is none that is whole, wherever that ends.
discard() {
    act rm -f "$PREFIX/versions/$1/$COMPLETE"
    act sync -f "$PREFIX/versions"
    act rm -rf "$PREFIX/versions/$1"
}

# left_behind OLD NEW: tell of the packages that somebody has added to the old version and that the new one does not have.
left_behind() {
    for asked_for in "$PREFIX/versions/$1"/lib/python3*/site-packages/*.dist-info/REQUESTED; do
        name=$(basename "$(dirname "$asked_for")" | sed 's/-[^-]*\.dist-info$//')
        if [ -e "$asked_for" ] && [ -z "$(find "$PREFIX/versions/$2/lib" -maxdepth 3 -name "$name-*.dist-info")" ]; then
            say "note: $name was added to $1, and $2 does not have it. Where it is needed: sudo $PREFIX/current/bin/pip install …"
        fi
    done
}
