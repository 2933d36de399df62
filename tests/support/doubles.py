"""A machine of its own with a real systemd as PID 1: this one's files with a layer over them that is gone when it is.

Needs root and systemd-nspawn. Nothing outside is changed: writes go to memory, the network is a loopback of its own.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import psutil

from support.commandline import Ended
from support.waiting import until

BOOT_S = 60.0
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# $1 an empty folder, $2 the name of its control group, then the folders to be seen inside as they are here.
_BOOT = """
set -e
here=$1 name=$2
shift 2
mount -t tmpfs none "$here"
mkdir "$here/upper" "$here/work" "$here/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$here/upper,workdir=$here/work" "$here/root"
for group in cpu cpuset memory devices freezer blkio pids; do
    [ -d "/sys/fs/cgroup/$group" ] || continue
    mkdir -p "/sys/fs/cgroup/$group/$name"
    if [ $group = cpuset ]; then
        for set in cpus mems; do cat "/sys/fs/cgroup/cpuset/cpuset.$set" >"/sys/fs/cgroup/cpuset/$name/cpuset.$set"; done
    fi
    echo $$ >"/sys/fs/cgroup/$group/$name/cgroup.procs"
done
for unit in mosquitto postgresql postgresql@ cron apt-daily ssh; do
    ln -sfn /dev/null "$here/root/etc/systemd/system/$unit.service"
done
for folder; do set -- "$@" "--bind-ro=$folder"; shift; done
# Whenever its power was cut, a line asks for it to be switched on again.
while true; do
    systemd-nspawn -q -D "$here/root" --register=no --keep-unit --private-network --boot --console=pipe "$@" </dev/null || true
    read -r _
done
"""


def why_not() -> str:
    """Return why no guest can be booted here; empty where one can."""
    if os.geteuid() != 0:
        return "only root can boot a guest"
    missing = [name for name in ("systemd-nspawn", "unshare", "nsenter") if shutil.which(name) is None]
    return f"no {' and no '.join(missing)} here: apt install systemd-container" if missing else ""


class Double:
    """A booted double of this machine; ``folders`` of this machine are seen inside, read-only, at the same paths."""

    def __init__(self, *folders: Path) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="guest-", dir="/dev/shm"))
        self._inside: list[subprocess.Popen[str]] = []
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by ``end``
        words = ["unshare", "-m", "bash", "-c", _BOOT, "boot", self._folder, self._folder.name, *folders]
        self._host = subprocess.Popen(
            list(map(str, words)), stdin=subprocess.PIPE, stdout=self._log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            self._boot()
        except BaseException:
            self.end()
            raise

    def _boot(self) -> None:
        self._pid = until(self._leader, BOOT_S)
        until(lambda: self.run("systemctl", "is-system-running").out.strip() in ("running", "degraded"), BOOT_S)

    def cut_power(self) -> None:
        """Let all its processes end at once, and boot it again; what it has written is there as it was."""
        assert self._host.stdin is not None
        before = psutil.Process(self._pid)
        before.kill()
        for process in self._inside:
            process.send_signal(signal.SIGCONT)  # one that was stopped is to see that what it has started is gone
        psutil.wait_procs([before, *psutil.Process(self._host.pid).children()], BOOT_S)
        self._host.stdin.write(b"\n")
        self._host.stdin.flush()
        self._boot()

    def _leader(self) -> int:
        assert self._host.poll() is None, self.said
        try:
            children = psutil.Process(self._host.pid).children(recursive=True)
            return next((each.pid for each in children if each.name() == "systemd"), 0)
        except psutil.NoSuchProcess:
            return 0  # a helper of the start that is over

    @property
    def said(self) -> str:
        """What it has written to its console."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def popen(self, *words: object, **environment: str) -> subprocess.Popen[str]:
        """Start a command inside, as root."""
        self._inside = [process for process in self._inside if process.poll() is None]
        outside = {"PATH": _PATH, "HOME": "/root", "LANG": "C.UTF-8", **environment}
        process = subprocess.Popen(
            ["nsenter", "-t", str(self._pid), "-a", "sh", "-c", 'cd / && exec "$@"', "sh", *map(str, words)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=outside,
        )
        self._inside.append(process)
        return process

    def run(self, *words: object, seconds: float = 300.0, **environment: str) -> Ended:
        """Run a command inside to its end."""
        with self.popen(*words, **environment) as process:
            out, err = process.communicate(timeout=seconds)
        return Ended(process.returncode, out, err)

    def changed(self) -> set[str]:
        """Return what differs from this machine: files, and folders that are not here; ``/`` left out at their beginnings."""
        upper = self._folder / "upper"
        words = ["nsenter", "-t", str(self._host.pid), "-m", "find", str(upper), "-mindepth", "1", "-printf", "%P\n"]
        found = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
        return {path for path in found if not Path("/", path).is_dir()}

    def end(self) -> None:
        """Cut its power."""
        for process in (*psutil.Process(self._host.pid).children(recursive=True), self._host):
            process.send_signal(signal.SIGKILL)
        self._host.wait(10)
        assert self._host.stdin is not None
        self._host.stdin.close()
        self._log.close()
        for group in Path("/sys/fs/cgroup").glob(f"*/{self._folder.name}"):
            for folder in sorted((group, *(each for each in group.rglob("*") if each.is_dir())), reverse=True):
                until(lambda folder=folder: _removed(folder))
        self._folder.rmdir()

    def __enter__(self) -> Double:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


def _removed(group: Path) -> bool:
    try:
        group.rmdir()
    except OSError:
        return False  # the kernel has not buried its processes yet
    return True
