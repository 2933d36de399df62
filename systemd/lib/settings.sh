# shellcheck shell=sh
# The configuration file: made from the template or the file given, changed where an option says so, checked before it is put in place.

CONFIG_FILE=/etc/reconvene-agent/config.toml
CONFIG_DIFFERS=""
CHECK='
import pathlib, sys
from reconvene_agent.core import config, errors
try:
    config.decode(config.read_owners(pathlib.Path(sys.argv[1])))
except errors.UsageError as error:
    sys.exit(error.message)
'

# setting FILE SECTION NAME: the text of a setting; nothing where it is not set.
setting() {
    awk -v section="[$2]" -v name="$3" '
        /^[ \t]*\[/ { inside = index($0, section) > 0; next }
        inside && $0 ~ "^[ \t]*" name "[ \t]*=" { sub(/^[^=]*=[ \t]*"?/, ""); sub(/".*$/, ""); print; exit }
    ' "$1"
}

# with_setting FILE SECTION NAME TEXT: the file with this setting; a line of it, or of an example of it, gives way.
with_setting() {
    awk -v section="[$2]" -v name="$3" -v text="$4" '
        function set() { print name " = \"" text "\""; done = 1 }
        /^[ \t]*\[/ { if (inside && !done) set(); inside = index($0, section) > 0; if (inside) seen = 1 }
        inside && !done && $0 ~ "^[# \t]*" name "[ \t]*=" { set(); next }
        { print }
        END { if (!seen) print "\n" section; if (!done) set() }
    ' "$1"
}

# plain TEXT OPTION: refuse what would need escaping in the file.
plain() {
    case $1 in
        '' | *[\"\\]* | *[![:print:]]* | *' '*) die "$2 wants a plain text without blanks, quotes and backslashes" ;;
    esac
}

# prepare_config PYTHON: make the configuration beside its place, and let PYTHON, of the version to come, check it.
prepare_config() {
    source=$CONFIG_FILE
    [ -e "$source" ] || source=$HERE/systemd/config.toml
    [ -z "$CONFIG_GIVEN" ] || source=$CONFIG_GIVEN
    if dry; then
        say "would write $CONFIG_FILE from $source${BROKER:+, with broker.url $BROKER}${WORKER_PYTHON:+, with worker.python $WORKER_PYTHON}"
        return
    fi
    mkdir -p "$CONFIG_DIR"
    made=$CONFIG_FILE.new
    (umask 077 && cat "$source" >"$made")
    if [ -n "$BROKER" ]; then change_setting broker url "$BROKER"; fi
    if [ -n "$WORKER_PYTHON" ]; then change_setting worker python "$WORKER_PYTHON"; fi
    if ! complaint=$("$1" -c "$CHECK" "$made" 2>&1); then
        rm -f "$made"
        die "$source does not suit the version that is to be installed:
$(printf '%s\n' "$complaint" | sed 's/^/  /')"
    fi
    if cmp -s "$made" "$CONFIG_FILE"; then rm -f "$made"; else CONFIG_DIFFERS=yes; fi
}

# place_config: put what was prepared in place, and keep what was there.
place_config() {
    if [ -n "$WORKER_BASE" ] && ! dry; then printf '%s\n' "$WORKER_BASE" >"$BASE_FILE"; fi
    if [ -z "$CONFIG_DIFFERS" ]; then return; fi
    if [ -e "$CONFIG_FILE" ]; then
        say "keeping the configuration as it was as $CONFIG_FILE.old"
        cp -p "$CONFIG_FILE" "$CONFIG_FILE.old"
    fi
    say "writing $CONFIG_FILE"
    sync "$CONFIG_FILE.new"
    mv "$CONFIG_FILE.new" "$CONFIG_FILE"
}

change_setting() {
    (umask 077 && with_setting "$made" "$1" "$2" "$3" >"$made.changed")
    mv "$made.changed" "$made"
}

# own_config: the service reads its configuration as its group, and nobody else but root does.
own_config() {
    act chgrp "$ACCOUNT" "$CONFIG_FILE"
    act chmod 0640 "$CONFIG_FILE"
}
