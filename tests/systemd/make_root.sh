#!/bin/sh
# make_root.sh FOLDER: a small Debian with systemd and Mosquitto, for guests to be booted from. Made once; needs root and the network.
set -eu

RELEASE=bookworm
target=$1
stamp=$(cksum <"$0")
[ "$(cat "$target.made" 2>/dev/null)" != "$stamp" ] || exit 0

mkdir -p "$(dirname -- "$target")"
# In memory where there is room: unpacking some hundred packages is mostly waiting for the disk.
if [ "$(df --output=avail -k /dev/shm 2>/dev/null | tail -n 1)" -gt 2000000 ] 2>/dev/null; then
    building=$(mktemp -d /dev/shm/debian-root.XXXXXX)
else
    building=$(mktemp -d "$target.XXXXXX")
fi
trap 'rm -rf "$building" "$target.new"' EXIT INT TERM
chmod 0755 "$building"
debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,python3,mosquitto,mosquitto-clients "$RELEASE" "$building" >&2
rm -rf "$building/var/cache/apt/archives" "$building/var/lib/apt/lists" "$building/usr/share/doc" "$building/usr/share/man"
rm -rf "$target" "$target.new"
cp -a "$building" "$target.new"
mv "$target.new" "$target"
printf '%s\n' "$stamp" >"$target.made"
