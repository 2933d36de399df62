"""A machine beside this one: a small Debian booted with systemd as its first process, and the agent installed as a service.

It is a container of systemd-nspawn on this kernel, with its own processes, files, users and control groups. It shares the
network, so a broker of a test is its broker too.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import psutil
import pytest

from support.waiting import until

CHECKOUT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "reconvene-agent/debian-bookworm"
UNIT = "reconvene-agent.service"
HOME = "/opt/reconvene-agent"
"""Where the service expects its interpreter; the interpreter of these tests, their libraries and the checkout are shown there."""
STATE = "/var/lib/reconvene-agent"
_CGROUPS = Path("/sys/fs/cgroup")
_CONTROLLERS = ("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids")
BOOT_S = 60.0
READY_S = 2.0
"""How soon after its start the service must be ready."""

# Version 1 control groups are read-only in a container; systemd must be able to make its own, or limits are nothing.
_INIT = """#!/bin/sh
for folder in /sys/fs/cgroup/*; do mount -o remount,rw,bind "$folder" 2>/dev/null; done
/sbin/ldconfig
exec /lib/systemd/systemd --log-target=journal
"""


def why_not() -> str:
    """Return why no guest can be booted here; empty where it can."""
    if os.geteuid() != 0:
        return "only root can boot a guest"
    missing = [tool for tool in ("systemd-nspawn", "debootstrap", "nsenter", "systemd-sysusers") if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} missing: apt install systemd-container debootstrap"
    if Path(sys.base_prefix) == Path("/usr") and sys.version_info[:2] != (3, 11):
        return "the guest's own Python is 3.11: run the tests with that, or with an interpreter outside of /usr"
    return ""


def make_root() -> Path:
    """Return the Debian that guests start from, made where it is not there; skip the test where it cannot be made or run."""
    made = subprocess.run([CHECKOUT / "tests/systemd/make_root.sh", CACHE], check=False, capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"NOT TESTED: the service under systemd, since debootstrap failed: {made.stderr.strip()[-200:]}")
    words = ("systemd-nspawn", "-q", f"--directory={CACHE}", "--read-only", "--register=no", "--keep-unit", "--console=pipe")
    tried = subprocess.run([*words, "/bin/true"], capture_output=True, text=True, timeout=60, check=False)
    if tried.returncode:
        pytest.skip(f"NOT TESTED: the service under systemd, since systemd-nspawn cannot run here: {tried.stderr.strip()[-200:]}")
    return CACHE


class Guest:
    """One guest: what it writes stays in ``folder`` and is there again at its next boot."""

    def __init__(self, folder: Path, base: Path) -> None:
        self.folder = folder
        self.root = folder / "root"
        self._base = base
        self._group = f"guest-{os.getpid()}-{folder.name}"
        self._process: subprocess.Popen[bytes] | None = None
        self._lent = False
        self.leader = 0
        for name in ("root", "upper", "work"):
            (folder / name).mkdir(parents=True)

    def prepare(self) -> None:
        """Make it bootable, with nothing of the agent in it."""
        self._mount()
        for unneeded in (
            "apt-daily.timer",
            "apt-daily-upgrade.timer",
            "dpkg-db-backup.timer",
            "e2scrub_all.timer",
            "mosquitto.service",
        ):
            (self.root / "etc/systemd/system" / unneeded).symlink_to("/dev/null")
        (self.root / "init-guest").write_text(_INIT)
        (self.root / "init-guest").chmod(0o755)

    def install(self, config: str) -> None:
        """Put the service into the guest as install.sh does, with a configuration, and lend it the libraries of these tests."""
        self.prepare()
        self._lent = True
        at = self.root / HOME.lstrip("/")
        for name in ("python", "libraries", "checkout", "venv/bin"):
            (at / name).mkdir(parents=True)
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        own = Path(sys.base_prefix) != Path("/usr")
        base = f"{HOME}/python/bin" if own else "/usr/bin"
        (at / "current").symlink_to("venv")
        (at / "venv/bin/python").symlink_to(f"{base}/{version}")
        (at / "venv/pyvenv.cfg").write_text(f"home = {base}\n")
        packages = at / "venv/lib" / version / "site-packages"
        packages.mkdir(parents=True)
        (packages / "shown.pth").write_text("".join(f"{HOME}/{part}\n" for part in self._paths()))
        tool = self.root / "usr/local/bin/reconvene-agent"
        tool.write_text(f"#!{HOME}/venv/bin/python\nimport sys\nfrom reconvene_agent.cli.main import main\nsys.exit(main())\n")
        tool.chmod(0o755)
        (self.root / "etc/ld.so.conf.d/python.conf").write_text(f"{HOME}/python/lib\n")
        system = self.root / "etc/systemd/system"
        for file in (UNIT, "reconvene.slice"):
            shutil.copy(CHECKOUT / "systemd" / file, system / file)
        shutil.copy(CHECKOUT / "systemd/sysusers.conf", self.root / "usr/lib/sysusers.d/reconvene-agent.conf")
        shutil.copy(CHECKOUT / "systemd/tmpfiles.conf", self.root / "usr/lib/tmpfiles.d/reconvene-agent.conf")
        self.configure(config)
        subprocess.run(["systemd-sysusers", f"--root={self.root}"], check=True, capture_output=True)
        wants = system / "multi-user.target.wants"
        wants.mkdir(exist_ok=True)
        (wants / UNIT).symlink_to(f"/etc/systemd/system/{UNIT}")

    def configure(self, config: str) -> None:
        """Replace the agent's configuration file."""
        file = self.root / "etc/reconvene-agent/config.toml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(config)

    def drop_in(self, name: str, text: str) -> None:
        """Override settings of the service from the next start on; an empty text takes that back."""
        file = self.root / f"etc/systemd/system/{UNIT}.d/{name}.conf"
        file.parent.mkdir(exist_ok=True)
        if text:
            file.write_text(text)
        else:
            file.unlink(missing_ok=True)
        if self._process is not None:
            self.run("systemctl", "daemon-reload")

    def _paths(self) -> list[str]:
        """Return what is imported from, relative to HOME: the checkout, and each folder of libraries that the tests use."""
        return ["checkout/agent", *(f"libraries/{number}" for number, _ in enumerate(self._libraries()))]

    def _libraries(self) -> list[Path]:
        found = [Path(entry) for entry in sys.path if entry.endswith("site-packages")]
        return found or [Path(sysconfig.get_path("purelib"))]

    def _mount(self) -> None:
        if not os.path.ismount(self.root):
            where = f"lowerdir={self._base},upperdir={self.folder / 'upper'},workdir={self.folder / 'work'}"
            subprocess.run(["mount", "-t", "overlay", "overlay", "-o", where, self.root], check=True, capture_output=True)

    def _enter_groups(self) -> None:
        """Make groups of its own for the guest, in every controller of version 1 that is mounted here."""
        for controller in _CONTROLLERS:
            parent = _CGROUPS / controller
            if not (parent / "cgroup.procs").exists():
                continue
            group = parent / self._group
            group.mkdir(exist_ok=True)
            if controller == "cpuset":
                for name in ("cpuset.cpus", "cpuset.mems"):
                    (group / name).write_text((parent / name).read_text())
            (group / "cgroup.procs").write_text("0")

    def _loans(self) -> list[str]:
        if not self._lent:
            return []
        shown = [f"--bind-ro={CHECKOUT}:{HOME}/checkout"]
        shown += [f"--bind-ro={library}:{HOME}/libraries/{number}" for number, library in enumerate(self._libraries())]
        if Path(sys.base_prefix) != Path("/usr"):
            shown.append(f"--bind-ro={sys.base_prefix}:{HOME}/python")
        for number, _ in enumerate(self._libraries()):
            (self.root / f"{HOME.lstrip('/')}/libraries/{number}").mkdir(exist_ok=True)
        return shown

    def boot(self, *folders: Path) -> Guest:
        """Boot and wait until systemd answers; ``folders`` of this machine are seen inside, read-only, at the same paths."""
        self._mount()
        shown = self._loans() + [f"--bind-ro={folder}" for folder in folders]
        command = ["systemd-nspawn", "-q", f"--directory={self.root}", "--register=no", "--keep-unit", "--console=pipe"]
        command += ["--link-journal=no", "--resolv-conf=off", "--timezone=off", "--kill-signal=SIGRTMIN+3"]
        with (self.folder / "console").open("ab") as console:
            self._process = subprocess.Popen(
                [*command, *shown, "/init-guest"],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                preexec_fn=self._enter_groups,  # noqa: PLW1509 - nothing else runs in this process that could hold a lock
            )
        until(self._find_leader, BOOT_S)
        until(lambda: self.run("systemctl", "is-system-running", check=False) in ("running", "degraded"), BOOT_S)
        return self

    def _find_leader(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "console").read_text()
        found = (child.pid for child in psutil.Process(self._process.pid).children(recursive=True) if _is_first(child))
        self.leader = next(found, 0)
        return self.leader != 0

    def start(self, *command: str, user: str = "") -> subprocess.Popen[str]:
        """Start a command inside, as root or as ``user``."""
        words: Sequence[str] = ("setpriv", f"--reuid={user}", "--init-groups", "--reset-env", *command) if user else command
        return subprocess.Popen(
            [
                "nsenter",
                f"--target={self.leader}",
                "--all",
                "env",
                "-i",
                "PATH=/usr/local/bin:/usr/bin:/usr/sbin",
                "LC_ALL=C.UTF-8",
                *words,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *command: str, user: str = "", check: bool = True, seconds: float = 60.0) -> str:
        """Run a command inside to its end; return what it said."""
        process = self.start(*command, user=user)
        said, _ = process.communicate(timeout=seconds)
        assert not check or process.returncode == 0, f"{command}: {process.returncode}: {said}"
        return said.strip()

    def unit(self, key: str) -> str:
        """Return a property of the service, such as ``MainPID``."""
        return self.run("systemctl", "show", UNIT, f"--property={key}", "--value")

    def soonest_ready_s(self) -> float:
        """Return how long the service took until it was ready, by the clock of systemd; the best of three starts at most.

        The processor is shared with other tests, which makes single starts slow.
        """
        taken = []
        for _ in range(3):
            begun, ready = (int(self.unit(f"{name}TimestampMonotonic")) for name in ("ExecMainStart", "ActiveEnter"))
            taken.append((ready - begun) / 1e6)
            if taken[-1] < READY_S:
                break
            self.run("systemctl", "restart", UNIT)
        return min(taken)

    def journal(self) -> str:
        return self.run("journalctl", "-u", UNIT, "-o", "cat", "--no-pager")

    def workers(self) -> list[psutil.Process]:
        """Return the agent's workers, as this machine sees them."""
        everything = psutil.Process(self.leader).children(recursive=True)
        return [process for process in everything if "reconvene_agent.worker" in process.cmdline()]

    def cut_power(self) -> None:
        """Let every process of the guest end at once."""
        assert self._process is not None
        os.kill(self.leader, signal.SIGKILL)
        self._process.wait(30)
        self._process = None

    def remove(self) -> None:
        """Take the guest away with all that it was."""
        if self._process is not None:
            self.cut_power()
        subprocess.run(["umount", "--lazy", self.root], check=False, capture_output=True)
        for controller in _CONTROLLERS:
            _remove_group(_CGROUPS / controller / self._group)

    def __enter__(self) -> Guest:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.remove()


def _is_first(process: psutil.Process) -> bool:
    """Whether a process is the first of a namespace of its own, and already systemd."""
    with contextlib.suppress(OSError, psutil.Error):
        status = Path(f"/proc/{process.pid}/status").read_text()
        return bool(re.search(r"^NSpid:.*\s1$", status, re.MULTILINE)) and process.name() == "systemd"
    return False


def _remove_group(group: Path) -> None:
    """Remove a control group and those below it, as soon as their last process has gone."""

    def gone() -> bool:
        for folder, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)  # noqa: PTH106 - the files in it are the kernel's
        return not group.exists()

    until(gone)
