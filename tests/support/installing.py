"""The installer, and folders of wheels made of the real one whose agent is another version, or does not work."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.commandline import Ended
from support.doubles import Double
from support.waiting import until

CHECKOUT = Path(__file__).parents[2]
INSTALLER = CHECKOUT / "install.sh"
WORKER = CHECKOUT / ".venv/bin/python"
"""An interpreter that has torch: what a test installs, takes its worker's libraries from there."""

SYSTEM_PYTHON = Path("/usr/bin/python3")
_UNITS = "/etc/systemd/system"


def installer(*words: object, cwd: Path = CHECKOUT, seconds: float = 60.0, **environment: str) -> Ended:
    """Run the installer here, to its end."""
    done = subprocess.run(
        [str(INSTALLER), *map(str, words)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
        cwd=cwd,
        env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", **environment},
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def altered(wheels: Path, out: Path, version: str, file: str = "", before: str = "", after: str = "") -> Path:
    """Copy a folder of wheels; the agent in it is of another version, with ``before`` replaced in one of its files."""
    shutil.copytree(wheels, out)
    (wheel,) = out.glob("reconvene_agent-*.whl")
    old = wheel.name.split("-")[1]
    changes = {
        "reconvene_agent/__init__.py": (f'"{old}"', f'"{version}"'),
        f"reconvene_agent-{old}.dist-info/METADATA": (f"\nVersion: {old}\n", f"\nVersion: {version}\n"),
        f"reconvene_agent-{old}.dist-info/RECORD": (f"reconvene_agent-{old}", f"reconvene_agent-{version}"),
    }
    if file:
        changes[file] = (before, after)
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(out / wheel.name.replace(old, version, 1), "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name in changes:
                text, other = changes[name]
                assert text in content.decode(), f"{name} does not say {text!r}"
                content = content.decode().replace(text, other).encode()
            target.writestr(name.replace(f"-{old}.dist-info", f"-{version}.dist-info"), content)
    wheel.unlink()
    return out


# $1 where, $2 the names of programs: each notes its call, and if it is the one, stops all of its group before anything is done.
_SHIMS = r"""
rm -rf "$1"; mkdir "$1"; : >"$1/calls"
cat >"$1/shim" <<'TEXT'
#!/bin/sh
here=${0%/*} call="${0##*/} $*"
export PATH="${PATH#*:}"
echo "$call" >>"$here/calls"
is_it() {
    [ "$(wc -l <"$here/calls")" != "$CALLS" ] || return 0
    [ -n "$BEFORE" ] || return 1
    case $call in $BEFORE) ;; *) return 1 ;; esac
    echo >>"$here/matched"
    [ "$(wc -l <"$here/matched")" -gt "$AFTER" ]
}
if [ ! -e "$here/stopped" ] && is_it; then
    echo "$call" >"$here/stopped"
    kill -s STOP -- "-$(cat "$here/group")" || exit
fi
exec "${0##*/}" "$@"
TEXT
chmod 755 "$1/shim"
for name in $2; do ln "$1/shim" "$1/$name"; done
"""
# $1 the version's folder, $2 its wheel, $3 its systemd/
_PLANT = """
old=$(readlink -f /opt/reconvene-agent/current)
rm -rf "$1"
cp -a "$old" "$1"
for site in "$1"/lib/python3*/site-packages; do
    rm -rf "$site"/reconvene_agent "$site"/reconvene_agent-*
    python3 -m zipfile -e "$2" "$site"
done
sed -i "s#$old#$1#" "$1/bin/reconvene-agent"
rm -rf "$1/service"
cp -R "$3" "$1/service"
rm -rf "$1/service/lib"
"""


def broken(wheels: Path, out: Path) -> Path:
    """Copy a folder of wheels; the agent in it is version 0.3.0 and ends at once, and it has a piece more."""
    made = altered(wheels, out, "0.3.0", "reconvene_agent/daemon/__main__.py", "def main(", "1 / 0\n\ndef main(")
    unit = made / "systemd/reconvene-agent.service"
    # It uses up all the starts that systemd allows.
    unit.write_text(unit.read_text().replace("RestartSec=5\n", "RestartSec=100ms\n"))
    assert "=100ms" in unit.read_text()
    (made / "systemd/extra.slice").write_text("[Slice]\n")
    return made


class Board:
    """A guest on which the agent is installed from folders of wheels."""

    def __init__(self, guest: Double) -> None:
        self.guest = guest

    def install(self, wheels: Path, *words: object) -> Ended:
        return self.guest.run(wheels / "install.sh", *words)

    @contextmanager
    def frozen(self, wheels: Path, *words: object, before: str = "", after: int = 0, calls: int = 0) -> Iterator[str]:
        """Call the installer and stop it, with all that it has started, before it runs a program; afterwards it is killed.

        The program is the first whose name and arguments match ``before``, a pattern of the shell, but for ``after`` that do so
        before it; or it is the one number ``calls``. Yield the call at which it stands, empty where it has come to its end.
        """
        shims, names = "/run/shims", "mv ln cp rm sync systemctl chgrp touch"
        self.guest.run("sh", "-c", _SHIMS, "sh", shims, names)
        path = f"{shims}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        begin = 'echo $$ >"$0/group"; exec "$@"'
        shell = ("setsid", "sh", "-c", begin, shims, wheels / "install.sh", *words)
        with self.guest.popen(*shell, PATH=path, BEFORE=before, AFTER=str(after), CALLS=str(calls)) as process:
            reader = threading.Thread(target=process.communicate)  # so that no pipe fills up
            reader.start()
            until(lambda: self.guest.run("test", "-e", f"{shims}/stopped").code == 0 or process.poll() is not None, 120)
            try:
                yield self.guest.run("cat", f"{shims}/stopped").out.strip()
            finally:
                self.guest.run("sh", "-c", f'kill -s KILL -- "-$(cat {shims}/group)"')
                process.send_signal(signal.SIGCONT)  # nsenter has stopped with what it has started
                reader.join(30)
            assert process.wait(30) != 0 or not self.guest.run("cat", f"{shims}/stopped").out

    def plant(self, wheels: Path) -> str:
        """Lay the version that some wheels hold beside the one that serves, made of that; return where. Quicker than building."""
        told = self.guest.run(wheels / "install.sh", "--dry-run")
        (name,) = re.findall(r"switching to (\S+) from", told.err)
        where = f"/opt/reconvene-agent/versions/{name}"
        (wheel,) = wheels.glob("reconvene_agent-*.whl")
        done = self.guest.run("sh", "-euc", _PLANT, "sh", where, wheel, wheels / "systemd")
        assert done.code == 0, done
        return where

    def settled(self) -> str:
        """Wait until whatever was cut short has come to its end by itself; return the version that serves then."""
        until(lambda: self.guest.run("test", "-e", "/opt/reconvene-agent/trial").code, 90)
        until(lambda: self.guest.run("systemctl", "is-active", "reconvene-agent-trial").out == "inactive\n", 90)
        until(lambda: self.guest.run("systemctl", "is-active", "reconvene-agent").out == "active\n", 30)
        until(lambda: self.guest.run("reconvene-agent", "status", "--json").code in (0, 1), 30)
        return self.version()

    def leftovers(self) -> list[str]:
        """Return what should not be there when no trial is."""
        patterns = (f"{_UNITS}/*trial*", f"{_UNITS}/*.wants/*trial*", "/opt/reconvene-agent/trial*", "/opt/reconvene-agent/*.new")
        return self.guest.run("sh", "-c", f"ls -d {' '.join(patterns)}").out.split()

    def judgement(self) -> list[str]:
        """Return what was said of trials that nobody but systemd was left to end, since the last boot."""
        return self.guest.run("journalctl", "-b", "-t", "reconvene-agent-trial", "-o", "cat").out.splitlines()

    def version(self) -> str:
        """Return the version that runs and answers."""
        told = self.guest.run("reconvene-agent", "status", "--json")
        assert told.code in (0, 1), told
        return str(told.document["version"])

    def versions(self) -> list[str]:
        """Return the versions that lie side by side, without their hashes."""
        return sorted(name.split("-")[0] for name in self.guest.run("ls", "/opt/reconvene-agent/versions").out.split())

    def read(self, path: str) -> str:
        told = self.guest.run("cat", path)
        assert told.code == 0, told
        return told.out

    def owners(self, folder: str) -> set[str]:
        """Return user and group of all in a folder."""
        return set(self.guest.run("find", folder, "-printf", "%u:%g\n").out.split())
