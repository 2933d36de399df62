#!/bin/sh
# make_kernel.sh FILE: the kernel of Debian's cloud images, which needs no modules to boot from memory. Fetched once.
set -eu

target=$1
[ ! -e "$target" ] || exit 0
package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-.*\)/\1/p' | head -n 1)
aside=$(mktemp -d)
trap 'rm -rf "$aside"' EXIT INT TERM
cd "$aside"
apt-get download -q "$package" >&2
dpkg -x ./*.deb .
cp boot/vmlinuz-* "$target.new"
mv "$target.new" "$target"
