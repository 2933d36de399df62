# shellcheck shell=sh
# The service's pieces: units, drop-ins, user and folders. Each version keeps its own set, so that going back brings back its units too.

ACCOUNT=reconvene-agent
ACCOUNT_TOLD=""
SERVICE=reconvene-agent
CONFIG_DIR=/etc/reconvene-agent
COMMAND=/usr/local/bin/reconvene-agent
DROP_INS=/etc/systemd/system/$SERVICE.service.d

systemd_runs() { [ -d /run/systemd/system ]; }

# where_to NAME: where a file of systemd/ belongs; nothing for what is not installed as it is.
where_to() {
    case $1 in
        *.service | *.slice | *.socket | *.timer | *.target | *.path) printf '%s\n' "/etc/systemd/system/$1" ;;
        sysusers.conf) printf '%s\n' "/etc/sysusers.d/$SERVICE.conf" ;;
        tmpfiles.conf) printf '%s\n' "/etc/tmpfiles.d/$SERVICE.conf" ;;
        jetson.conf) if is_jetson; then printf '%s\n' "$DROP_INS/$1"; fi ;;
        config.toml | lib) ;;
        *) die "systemd/$1: install.sh does not know where that belongs" ;;
    esac
}

# put SOURCE TARGET: a file with our prefix in it, in place at once.
put() {
    mkdir -p "$(dirname "$2")"
    with_prefix "$1" >"$2.new"
    chmod 0644 "$2.new"
    mv "$2.new" "$2"
}

with_prefix() { sed -e "s#/opt/reconvene-agent/current/#$PREFIX/current/#g" -e "s#/opt/reconvene-agent/trial#$PREFIX/trial#g" "$1"; }

# pieces_agree FOLDER: whether its files are in place as they are.
pieces_agree() {
    for file in "$1"/*; do
        target=$(where_to "${file##*/}")
        if [ -n "$target" ] && ! with_prefix "$file" | cmp -s - "$target"; then return 1; fi
    done
}

# install_pieces FOLDER: its files in place, and of those in place none that FOLDER does not have.
install_pieces() {
    targets=""
    for file in "$1"/*; do
        target=$(where_to "${file##*/}")
        [ -n "$target" ] || continue
        act put "$file" "$target"
        targets="$targets $target"
    done
    for target in $(installed_pieces); do
        case " $targets " in *" $target "*) ;; *) act rm -f "$target" ;; esac
    done
    make_account "$1"
    if have systemd-tmpfiles && [ -e "$1/tmpfiles.conf" ]; then
        act systemd-tmpfiles --create "$(where_to tmpfiles.conf)"
    fi
    if systemd_runs; then act systemctl daemon-reload; fi
}

# installed_pieces: what lies in place of any version that is there, this one included.
installed_pieces() {
    for file in "$PREFIX"/versions/*/service/* "$HERE"/systemd/*; do
        target=$(where_to "${file##*/}" 2>/dev/null) || continue
        if [ -n "$target" ] && [ -e "$target" ]; then printf '%s\n' "$target"; fi
    done | sort -u
    if [ -e "$DROP_INS/jetson.conf" ]; then printf '%s\n' "$DROP_INS/jetson.conf"; fi
}

# make_account FOLDER: the service's user, as the version in FOLDER describes it.
make_account() {
    if id "$ACCOUNT" >/dev/null 2>&1 || [ -n "$ACCOUNT_TOLD" ]; then
        return
    fi
    if dry; then ACCOUNT_TOLD=yes; fi
    say "adding the system user $ACCOUNT"
    if have systemd-sysusers && [ -e "$1/sysusers.conf" ]; then
        act put "$1/sysusers.conf" "$(where_to sysusers.conf)"
        act systemd-sysusers "$(where_to sysusers.conf)"
    else
        act useradd --system --user-group --no-create-home --home-dir "/var/lib/$SERVICE" --shell /usr/sbin/nologin "$ACCOUNT"
    fi
}

remove_account() {
    if id "$ACCOUNT" >/dev/null 2>&1; then
        say "removing the system user $ACCOUNT"
        act userdel "$ACCOUNT"
    fi
    if grep -q "^$ACCOUNT:" /etc/group; then act groupdel "$ACCOUNT"; fi
}

# A version that has failed again and again uses up the starts that systemd allows; those of the next one count anew.
start_service() {
    if systemd_runs; then
        dry || systemctl reset-failed "$SERVICE" 2>/dev/null || true
        act systemctl start --no-block "$SERVICE"
    fi
}
stop_service() { if systemd_runs && [ -e "/etc/systemd/system/$SERVICE.service" ]; then act systemctl stop "$SERVICE"; fi; }
