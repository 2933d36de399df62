"""Run inside the service's sandbox by test_sandbox: tries what the sandbox is to forbid, and what it must leave possible.

Prints one JSON object: for each attempt ``null`` where it succeeded, else the name of the error. It undoes what it has done.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
# Of linux/sched.h, sys/mount.h, linux/reboot.h, sys/personality.h; AF_* that Python does not name everywhere.
CLONE_NEWUSER, MS_BIND, ADDR_NO_RANDOMIZE, AF_ALG = 0x10000000, 4096, 0x40000, 38


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) == -1:
        raise OSError(ctypes.get_errno(), name)


def _write(folder: str) -> Callable[[], None]:
    def attempt() -> None:
        file = Path(folder) / "probe"
        file.write_text("x")
        file.unlink()

    return attempt


def _open(path: str, how: int) -> Callable[[], None]:
    return lambda: os.close(os.open(path, how))


def _socket(family: int, kind: int = socket.SOCK_DGRAM) -> Callable[[], None]:
    return lambda: socket.socket(family, kind).close()


def _other_processes() -> None:
    """Succeed where a process of somebody else is to be seen."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and entry.stat().st_uid != os.geteuid():
            return
    raise OSError(errno.ESRCH, "none but our own")


def _set_user_bit() -> None:
    file = Path(os.environ.get("STATE_DIRECTORY", "/var/lib")) / "probe"
    file.touch()
    try:
        file.chmod(0o4755)
    finally:
        file.unlink()


def _run_as_root() -> None:
    """Run a program that is root's, whoever starts it: the test has put it there."""
    told = subprocess.run(["/usr/local/bin/roots-id", "-u"], capture_output=True, text=True, check=True).stdout
    if told.strip() != "0":
        raise OSError(errno.EPERM, "roots-id")


def _unshare() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0 if _libc.unshare(CLONE_NEWUSER) == 0 else ctypes.get_errno())
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        raise OSError(status, "unshare")


def _realtime() -> None:
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def _step_back() -> None:
    os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0) + 1)


def _spread() -> None:
    os.sched_setaffinity(0, os.sched_getaffinity(0))


def _read_facts() -> None:
    for name in ("meminfo", "cpuinfo", "vmstat", "self/cgroup"):
        assert Path("/proc", name).read_text()


FORBIDDEN: dict[str, Callable[[], None]] = {
    **{
        f"write {folder}": _write(folder)
        for folder in ("/", "/etc", "/etc/reconvene-agent", "/usr/bin", "/opt/reconvene-agent", "/var/lib", "/var/log", "/boot")
    },
    **{f"write {folder}": _write(folder) for folder in ("/run", "/run/lock", "/run/systemd", "/home/other", "/root", "/srv")},
    "write a kernel setting": _open("/proc/sys/kernel/printk", os.O_WRONLY),
    "read the password hashes": _open("/etc/shadow", os.O_RDONLY),
    "read the root's home": lambda: os.close(os.open("/root/.profile", os.O_RDONLY)),
    "see others' shared memory": _open("/dev/shm/others", os.O_RDONLY),
    "see other users' processes": _other_processes,
    "signal the first process": lambda: os.kill(1, 0),
    "load a module": lambda: _call("init_module", b"", 0, b""),
    "unload a module": lambda: _call("delete_module", b"no-such-module", os.O_NONBLOCK),
    "become root": lambda: os.setresuid(0, 0, 0) if os.geteuid() else None,
    "run a program as root": _run_as_root,
    "make a set-user-id file": _set_user_bit,
    "make a namespace": _unshare,
    "mount": lambda: _call("mount", b"/usr", b"/srv", None, MS_BIND, None),
    "trace": lambda: _call("ptrace", 0, 0, None, None),
    "set the clock": lambda: _call("settimeofday", None, ctypes.byref(ctypes.c_uint64(0))),
    "set the host's name": lambda: socket.sethostname(socket.gethostname()),
    "swap": lambda: _call("swapoff", b"/no-such-swap"),
    "change personality": lambda: _call("personality", ctypes.c_ulong(ADDR_NO_RANDOMIZE)),
    "realtime": _realtime,
    "kernel log": _open("/dev/kmsg", os.O_RDONLY),
    "AF_PACKET": _socket(socket.AF_PACKET),
    "AF_NETLINK": _socket(socket.AF_NETLINK),
    "AF_ALG": _socket(AF_ALG, socket.SOCK_SEQPACKET),
    "AF_VSOCK": _socket(socket.AF_VSOCK, socket.SOCK_STREAM),
}
NEEDED: dict[str, Callable[[], None]] = {
    "write its state": _write("/var/lib/reconvene-agent"),
    "write its run folder": _write("/run/reconvene-agent"),
    "write private temporary files": _write("/tmp"),
    "share memory with itself": _write("/dev/shm"),
    "read facts of the board": _read_facts,
    "AF_UNIX": _socket(socket.AF_UNIX),
    "AF_INET": _socket(socket.AF_INET),
    "AF_INET6": _socket(socket.AF_INET6),
    "step back": _step_back,
    "spread over the cores": _spread,
    "make code of its own": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC).close(),
    "be killed first": lambda: Path("/proc/self/oom_score_adj").write_text("500") and None,
}


def attempt(what: Callable[[], None]) -> str | None:
    """Return the name of the error that an attempt meets, or None where it succeeds."""
    try:
        what()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, "unknown")
    return None


def main() -> None:
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    told = {
        "forbidden": {name: attempt(what) for name, what in FORBIDDEN.items()},
        "needed": {name: attempt(what) for name, what in NEEDED.items()},
        "status": {name: status[name] for name in ("CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")},
    }
    Path(sys.argv[1]).write_text(json.dumps(told))


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    main()
