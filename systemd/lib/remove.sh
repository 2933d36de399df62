# shellcheck shell=sh
# Removing the service. What is kept belongs to root from then on: the number of the user that is gone may be given to another.

STATE_DIR=/var/lib/reconvene-agent
KEPT_MARK=$STATE_DIR/.kept

uninstall() {
    is_root || dry || die "the service is removed by root: sudo ./install.sh uninstall"
    close_trial
    say "stopping the service"
    if systemd_runs && [ -e "/etc/systemd/system/$SERVICE.service" ]; then
        act systemctl disable --quiet --now "$SERVICE"
    else
        act rm -f "/etc/systemd/system/multi-user.target.wants/$SERVICE.service"
    fi
    pieces=$(installed_pieces)
    if [ -n "$PURGE" ]; then purge; else keep; fi
    remove_account
    say "removing the service's files"
    for piece in $pieces; do act rm -f "$piece" "$piece.new"; done
    if [ -d "$DROP_INS" ]; then
        [ -z "$PURGE" ] || act rm -rf "$DROP_INS"
        rmdir "$DROP_INS" 2>/dev/null || dry || [ ! -e "$DROP_INS" ] || say "kept: $DROP_INS, which holds settings of yours"
    fi
    if systemd_runs; then
        act systemctl daemon-reload
        systemctl reset-failed "$SERVICE" 2>/dev/null || true
        for piece in $pieces; do
            case $piece in *.slice) systemctl stop "${piece##*/}" 2>/dev/null || true ;; esac
        done
    fi
    case $(readlink "$COMMAND" 2>/dev/null) in
        "$PREFIX"/*) act rm -f "$COMMAND" ;;
    esac
    for folder in "$PREFIX"/versions/*; do
        [ ! -d "$folder" ] || discard "${folder##*/}"
    done
    act rm -rf "$PREFIX/versions" "$PREFIX/current" "$PREFIX/current.new" "/run/$SERVICE" "/var/cache/$SERVICE"
    if [ -d "$PREFIX" ] && ! dry; then rmdir "$PREFIX" 2>/dev/null || say "kept: $PREFIX, which holds files of yours"; fi
    dry || say "reconvene-agent is removed"
}

purge() {
    say "removing the configuration and all state: $CONFIG_DIR $STATE_DIR"
    if [ -r "$CONFIG_FILE" ]; then
        elsewhere=$(setting "$CONFIG_FILE" agent state_dir)
        case ${elsewhere:-$STATE_DIR} in
            "$STATE_DIR" | "$STATE_DIR/") ;;
            *) say "kept: $elsewhere, where the configuration has put the state" ;;
        esac
    fi
    act rm -rf "$CONFIG_DIR" "$STATE_DIR"
}

keep() {
    # First of all, so that it is taken up again wherever this ends.
    if [ -d "$STATE_DIR" ]; then act touch "$KEPT_MARK"; fi
    for folder in "$CONFIG_DIR" "$STATE_DIR"; do
        [ -d "$folder" ] || continue
        say "kept: $folder (uninstall --purge removes it)"
        if id "$ACCOUNT" >/dev/null 2>&1; then
            act find "$folder" -xdev -user "$ACCOUNT" -exec chown -h root {} +
            act find "$folder" -xdev -group "$ACCOUNT" -exec chgrp -h root {} +
        fi
    done
}

# take_up_kept: give the state that an uninstallation has kept to the service again.
take_up_kept() {
    if [ -n "$(find "$KEPT_MARK" -user root 2>/dev/null)" ]; then
        say "taking up the state that was kept in $STATE_DIR"
        act find "$STATE_DIR" -xdev -user root -exec chown -h "$ACCOUNT:$ACCOUNT" {} +
        act rm -f "$KEPT_MARK"
    fi
}
