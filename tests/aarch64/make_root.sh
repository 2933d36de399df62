#!/bin/sh
# make_root.sh FOLDER: a small Debian for aarch64 with Python 3.11 and systemd's tools. Made once; needs root, the network, and a
# kernel that starts aarch64 programs in qemu. It is put together in TMPDIR, best in memory: unpacking packages is mostly waiting
# for the disk.
set -eu

RELEASE=bookworm
target=$1
stamp=$(cksum <"$0")
[ "$(cat "$target.made" 2>/dev/null)" != "$stamp" ] || exit 0

mkdir -p "$(dirname -- "$target")"
building=$(mktemp -d)
clean() {
    umount "$building/proc" 2>/dev/null || true # which debootstrap leaves where it is interrupted
    rm -rf --one-file-system "$building" "$target.new"
}
trap clean EXIT
trap 'exit 143' HUP INT TERM
chmod 0755 "$building"
debootstrap --arch=arm64 --foreign --variant=minbase --include=python3,python3-venv,systemd "$RELEASE" "$building" >&2
DEBIAN_FRONTEND=noninteractive chroot "$building" /debootstrap/debootstrap --second-stage >&2
umount "$building/proc" 2>/dev/null || true
rm -rf "$building/var/cache/apt/archives" "$building/var/lib/apt/lists" "$building/usr/share/doc" "$building/usr/share/man"
rm -rf "$target" "$target.new"
cp -a "$building" "$target.new"
mv "$target.new" "$target"
printf '%s\n' "$stamp" >"$target.made"
