"""What the device tree says of the board, where there is one."""

from __future__ import annotations

from pathlib import Path

from reconvene_agent.core.kernel.files import read_line, read_text

_ROOTS = ("sys/firmware/devicetree/base", "proc/device-tree")


def model(root: Path) -> str | None:
    """Return the board's name, or None without a device tree."""
    return next((name for tree in _ROOTS if (name := read_line(root / tree / "model"))), None)


def compatible(root: Path) -> tuple[str, ...]:
    """Return the ``compatible`` strings, most specific first; none without a device tree."""
    for tree in _ROOTS:
        names = [name.strip() for name in (read_text(root / tree / "compatible") or "").split("\0")]
        if found := tuple(name for name in names if name):
            return found
    return ()
