"""A whole machine beside this one, emulated: a kernel of its own, with control groups of version 2 alone.

A container shares the kernel of the host, and where that counts memory by groups of version 1 nothing can be delegated. What is
needed of the project is copied into the machine's memory; it is slow, so what it does must be little.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from support import guests
from support.guests import CHECKOUT, HOME, Guest

KERNEL = guests.CACHE.with_name("vmlinuz")
LIBRARIES = ("msgspec", "psutil", "paho", "rich", "tomli_w", "markdown_it", "mdurl", "pygments")
HEAVY = (
    *(
        "torch",
        "functorch",
        "torchgen",
        "numpy",
        "numpy.libs",
        "onnx",
        "onnxruntime",
        "onnxscript",
        "onnx_ir",
        "ml_dtypes",
        "safetensors",
    ),
    *("PIL", "pillow.libs", "google", "flatbuffers", "sympy", "mpmath", "networkx", "jinja2", "markupsafe", "filelock", "fsspec"),
    *("packaging", "typing_extensions.py"),
)
"""What a worker needs beside that."""
QEMU = "qemu-system-x86_64"
MEMORY_MB = 2600
HEAVY_MEMORY_MB = 5600
_LEFT_OUT = shutil.ignore_patterns("include", "test", "tests", "bin", "_inductor", "*.a", "__pycache__")

_UNIT = """[Unit]
After=multi-user.target

[Service]
Type=oneshot
StandardOutput=tty
StandardError=inherit
TTYPath=/dev/ttyS0
ExecStart=/bin/sh -u /scenario
ExecStopPost=systemctl poweroff --force --force
"""
_TARGET = "[Unit]\nRequires=multi-user.target\nAfter=multi-user.target\nWants=scenario.service\n"
_SILENT = ("serial-getty@ttyS0.service", "getty@tty1.service", "systemd-udevd.service", "systemd-udev-trigger.service")


def why_not() -> str:
    """Return why no machine can be emulated here; empty where it can."""
    missing = [tool for tool in (QEMU, "cpio", "apt-get", "dpkg") if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} missing: apt install qemu-system-x86 cpio"
    if sys.version_info[:2] != (3, 11):
        return "the machine's own Python is 3.11, and is lent the libraries of these tests: run them with that"
    return guests.why_not()


def pack(guest: Guest, scenario: str, heavy: bool = False) -> Path:
    """Pack a guest in which the service is installed into the file that a machine boots from; it does ``scenario``, a script."""
    at = guest.root / HOME.lstrip("/")
    shutil.rmtree(at / "venv")
    (at / "venv/bin").mkdir(parents=True)
    (at / "venv/bin/python").symlink_to("/usr/bin/python3.11")
    (at / "venv/pyvenv.cfg").write_text("home = /usr/bin\n")
    packages = at / "venv/lib/python3.11/site-packages"
    folders = [Path(entry) for entry in sys.path if entry.endswith("site-packages")] or [Path(sysconfig.get_path("purelib"))]
    for name in (*LIBRARIES, *(HEAVY if heavy else ())):
        source = next(folder / name for folder in folders if (folder / name).exists())
        if source.is_dir():
            shutil.copytree(source, packages / name)
        else:
            shutil.copy(source, packages)
    shutil.copytree(CHECKOUT / "agent/reconvene_agent", packages / "reconvene_agent")
    shutil.copytree(CHECKOUT / "device_profiles", packages / "reconvene_agent/device_profiles")
    (guest.root / "scenario").write_text(scenario)
    system = guest.root / "etc/systemd/system"
    (system / "scenario.service").write_text(_UNIT)
    (system / "scenario.target").write_text(_TARGET)
    (system / "mosquitto.service").unlink()  # no longer masked
    for name in _SILENT:
        (system / name).unlink(missing_ok=True)
        (system / name).symlink_to("/dev/null")
    packed = guest.folder / "initrd"
    with packed.open("wb") as file:
        names = subprocess.run(["find", ".", "-xdev"], cwd=guest.root, check=True, capture_output=True).stdout
        subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], cwd=guest.root, check=True, input=names, stdout=file)
    return packed


def run(packed: Path, seconds: float, memory_mb: int = MEMORY_MB) -> str:
    """Boot a machine, wait until it has done its scenario and switched itself off; return what was on its console.

    Raises:
        subprocess.TimeoutExpired: it took longer than that.
    """
    subprocess.run([CHECKOUT / "tests/systemd/make_kernel.sh", KERNEL], check=True, capture_output=True)
    words = "console=ttyS0 rdinit=/lib/systemd/systemd quiet systemd.unit=scenario.target systemd.show_status=no panic=-1"
    machine = [QEMU, "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", str(memory_mb), "-nic", "none"]
    started = [*machine, "-nographic", "-no-reboot", "-kernel", str(KERNEL), "-initrd", str(packed), "-append", words]
    done = subprocess.run(started, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=True)
    return done.stdout.decode(errors="replace").replace("\r", "")
