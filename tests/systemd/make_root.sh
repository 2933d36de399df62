#!/bin/sh
# make_root.sh FOLDER: a small Debian with systemd, for guests to be booted from. Made once; needs root and the network.
set -eu

RELEASE=bookworm
target=$1
[ ! -e "$target/etc/debian_version" ] || exit 0

mkdir -p "$(dirname -- "$target")"
# In memory where there is room: unpacking some hundred packages is mostly waiting for the disk.
aside=$target.new
if [ "$(df --output=avail -k /dev/shm 2>/dev/null | tail -n 1)" -gt 2000000 ] 2>/dev/null; then
    building=$(mktemp -d /dev/shm/debian-root.XXXXXX)
else
    building=$(mktemp -d "$target.XXXXXX")
fi
trap 'rm -rf "$building" "$aside"' EXIT INT TERM
rm -rf "$aside"
debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,python3,python3-venv,ca-certificates "$RELEASE" "$building" >&2
rm -rf "$building/var/cache/apt/archives" "$building/var/lib/apt/lists" "$building/usr/share/doc" "$building/usr/share/man"
cp -a "$building" "$aside"
mv "$aside" "$target"
