"""The installer, and folders of wheels made of the real one whose agent is another version, or does not work."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from pathlib import Path

from support.commandline import Ended
from support.doubles import Double

CHECKOUT = Path(__file__).parents[2]
INSTALLER = CHECKOUT / "install.sh"
WORKER = CHECKOUT / ".venv/bin/python"
"""An interpreter that has torch: what a test installs, takes its worker's libraries from there."""

SYSTEM_PYTHON = Path("/usr/bin/python3")


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


class Board:
    """A guest on which the agent is installed from folders of wheels."""

    def __init__(self, guest: Double) -> None:
        self.guest = guest

    def install(self, wheels: Path, *words: object) -> Ended:
        return self.guest.run(wheels / "install.sh", *words)

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
