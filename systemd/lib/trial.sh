# shellcheck shell=sh
# A version is on trial from before anything of the one that serves is touched until it has proved itself. What PREFIX/trial holds,
# this installer included, is enough to end the trial when whoever began it is gone: killed, or with the power. Nothing of it is Python.

JUDGE=/etc/systemd/system/$SERVICE-trial.service
JUDGE_AT_BOOT=/etc/systemd/system/multi-user.target.wants/$SERVICE-trial.service

on_trial() { [ -e "$PREFIX/trial/version" ]; }
noted() { cat "$PREFIX/trial/$1"; }

# begin_trial VERSION: note, before the first change, what is needed to complete it or to take it back.
begin_trial() {
    if dry; then
        say "would note in $PREFIX/trial that $1 is on trial${CURRENT:+, and how $CURRENT served}"
        return
    fi
    note=$PREFIX/trial.new
    rm -rf "$note"
    mkdir -m 0700 "$note"
    cp -R "$HERE/install.sh" "$HERE/systemd" "$note"
    for fact in "former $CURRENT" "built $BUILT" "resting $RESTING" "wait $WAIT_S" "version $1"; do
        printf '%s\n' "${fact#* }" >"$note/${fact%% *}"
    done
    for file in "$CONFIG_FILE" "$BASE_FILE"; do
        [ ! -e "$file" ] || cp -p "$file" "$note"
    done
    # Before there is a note somebody is there to act on it, who goes away by himself where there is none. Of a first installation
    # nothing is to be taken back: it is completed when install.sh is called again.
    if [ -n "$CURRENT" ]; then
        put "$HERE/systemd/lib/trial.service" "$JUDGE"
        mkdir -p "${JUDGE_AT_BOOT%/*}"
        ln -sfn "$JUDGE" "$JUDGE_AT_BOOT"
        sync -f "$JUDGE"
        if systemd_runs; then
            systemctl daemon-reload
            systemctl restart --no-block "${JUDGE##*/}"
        fi
    fi
    sync -f "$PREFIX"
    mv -T "$note" "$PREFIX/trial"
    sync -f "$PREFIX"
}

# close_trial: from here on nothing is completed or taken back any more.
close_trial() {
    if dry; then return; fi
    rm -rf "$PREFIX/trial.over" "$PREFIX/trial.new"
    if [ -e "$PREFIX/trial" ]; then
        mv -T "$PREFIX/trial" "$PREFIX/trial.over"
        sync -f "$PREFIX"
        rm -rf "$PREFIX/trial.over"
    fi
    if [ -e "$JUDGE" ] || [ -e "$JUDGE.new" ]; then
        rm -f "$JUDGE_AT_BOOT" "$JUDGE" "$JUDGE.new"
        if systemd_runs; then systemctl daemon-reload; fi
    fi
}

# end_trial: what is noted, brought to an end: the version proves itself, or the former one serves again as it did.
end_trial() {
    version=$(noted version)
    CURRENT=$(noted former)
    BUILT=$(noted built)
    WAIT_S=$(noted wait)
    if [ -n "$(noted resting)" ] && systemd_runs && [ "$(systemctl is-active "$SERVICE")" = inactive ]; then RESTING=yes; fi
    if [ "$(serving)" = "$version" ]; then
        say "the installation of $version was cut short; it is on trial now"
        pieces_agree "$PREFIX/versions/$version/service" || install_pieces "$PREFIX/versions/$version/service"
        settle
        finish "$version"
    elif [ -n "$CURRENT" ]; then
        say "the change from $CURRENT to $version was cut short before it served"
        go_back
    else
        close_trial
    fi
}

# end_earlier_trial: one that an installation which was cut short has left, by the installer that began it.
end_earlier_trial() {
    on_trial || return 0
    if dry; then
        say "would end the trial of $(noted version) first, whose installation was cut short"
        return
    fi
    take_time sh "$PREFIX/trial/install.sh" end-trial || true
    if on_trial; then die "the trial of $(noted version) could not be ended; the lines above say why"; fi
}

# take_config_back: the configuration, and where the worker's environment comes from, as they were before the trial.
take_config_back() {
    for file in "$CONFIG_FILE" "$BASE_FILE"; do
        kept=$PREFIX/trial/${file##*/}
        if [ ! -e "$kept" ] || cmp -s "$kept" "$file"; then continue; fi
        cp -p "$kept" "$file.new"
        sync "$file.new"
        mv "$file.new" "$file"
        if cmp -s "$kept" "$file.old"; then rm -f "$file.old"; fi
    done
}
