"""Which board this is and what runs on it: names from the device tree or the firmware, and the operating system's."""

from __future__ import annotations

import os
from pathlib import Path

from reconvene_agent.core.kernel import devicetree
from reconvene_agent.core.kernel.files import HOST, read_line, read_text

UNKNOWN = "unknown"

_PRODUCT_NAMES = ("sys/class/dmi/id/product_name", "sys/class/dmi/id/board_name")
_PLACEHOLDERS = ("to be filled by o.e.m.", "system product name", "default string", "not applicable", "none", "o.e.m.")


def model(root: Path) -> str:
    """Return the board's name from its device tree, else the machine's product name, else ``unknown``."""
    if name := devicetree.model(root):
        return name
    for file in _PRODUCT_NAMES:
        name = read_line(root / file)
        if name and name.lower() not in _PLACEHOLDERS:
            return name
    return UNKNOWN


def architecture(root: Path) -> str:
    """Return what ``uname -m`` says: on this machine by asking, elsewhere from a file that kernels have since 6.1."""
    told = None if root == HOST else read_line(root / "proc/sys/kernel/arch")
    return told or os.uname().machine


def kernel(root: Path) -> str:
    """Return the kernel's release, as ``uname -r`` says."""
    return read_line(root / "proc/sys/kernel/osrelease") or os.uname().release


def os_name(root: Path) -> str:
    """Return the operating system's name for people, with its version; ``unknown`` when it is not told."""
    names: dict[str, str] = {}
    for file in ("etc/os-release", "usr/lib/os-release"):
        if text := read_text(root / file):
            for line in text.splitlines():
                key, equals, value = line.strip().partition("=")
                if equals and not key.startswith("#"):
                    names[key] = _unquoted(value)
            break
    versioned = " ".join(name for name in (names.get("NAME"), names.get("VERSION_ID")) if name)
    return names.get("PRETTY_NAME") or versioned or UNKNOWN


def _unquoted(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
        value = value[1:-1]
    for mark in ('"', "$", "`", "\\"):
        value = value.replace(f"\\{mark}", mark)
    return value
