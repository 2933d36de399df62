"""Reading the small files in which a kernel tells facts, without ever failing or waiting.

Every probe takes ``root``, the folder that stands for ``/``, so that a copy of a board's files can be probed as well.
"""

from __future__ import annotations

import os
from pathlib import Path

HOST = Path("/")
"""The root that stands for this machine itself; only there may a probe ask the kernel by other means than files."""

_MAX_BYTES = 1 << 20
_LARGEST = 1 << 64


def read_text(path: Path) -> str | None:
    """Return a file's text, or None when it cannot be read; what is beyond 1 MiB is left out.

    It reads the descriptor directly: sensors that are switched off answer EAGAIN, which Python's buffered files turn
    into None instead of an error.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except (OSError, ValueError):
        return None
    content = b""
    try:
        while len(content) < _MAX_BYTES and (piece := os.read(descriptor, 1 << 16)):
            content += piece
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return content.decode("utf-8", "replace")


def read_line(path: Path) -> str | None:
    """Return the text of a file that holds one value, without the NUL or newline at its end; None when there is none."""
    return (read_text(path) or "").partition("\0")[0].strip() or None


def read_number(path: Path, base: int = 10) -> int | None:
    """Return the number that a file holds, or None when it holds anything else."""
    line = read_line(path)
    return None if line is None else parse_number(line, base)


def parse_number(text: str, base: int = 10) -> int | None:
    """Return a number as a kernel writes it, or None for what is no number or does not fit in 64 bits."""
    try:
        number = int(text, base)
    except ValueError:
        return None
    return number if abs(number) < _LARGEST else None


def children(folder: Path, prefix: str) -> list[Path]:
    """Return what lies in a folder under names that begin with ``prefix``, sorted; nothing when it cannot be listed."""
    try:
        return sorted(child for child in folder.iterdir() if child.name.startswith(prefix))
    except OSError:
        return []
