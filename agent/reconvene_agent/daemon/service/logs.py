"""The agent's log: one line a record, for people or for programs, with the ids of the command that it is about.

It goes to stderr, which under systemd is the journal; the last lines are kept in the state folder too, for ``log_upload``.
"""

from __future__ import annotations

import logging
import os
import sys
from collections import deque
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Any

import msgspec

from reconvene_agent.core.clock import rfc3339
from reconvene_agent.core.decoding import from_json
from reconvene_agent.core.job import key_of
from reconvene_agent.core.messages import OPERATIONS

NAME = "reconvene_agent"
FILE = "log.jsonl"
FILE_BYTES = 96 * 1024
"""After so many bytes a new file is begun; the one before is kept."""
LINE_MOST = 2000
PART_BYTES = 32 * 1024
"""Most bytes of lines in one message: a part fits into the smallest spool."""

_PRIORITY = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:/+-")

_line = msgspec.json.Decoder(dict[str, Any])


def about(label: str) -> dict[str, Any]:
    """Return what goes with a record as ``extra`` so that it carries the ids of the command with this label."""
    return {"about": label}


def set_up(level: str, shape: str) -> None:
    """Let the log go to stderr, from ``level`` on and in the ``shape`` that ``agent.log_format`` names."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(shape, "JOURNAL_STREAM" in os.environ))
    root = logging.getLogger(NAME)
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    root.propagate = False


def keep(folder: Path) -> None:
    """Keep the last lines in ``folder`` from now on."""
    logging.getLogger(NAME).addHandler(Ring(folder / FILE))


def _fields(record: logging.LogRecord, formatter: logging.Formatter) -> dict[str, str]:
    """Return a record as it is written, in order; ``job`` is also the name of the job's folder."""
    text = " | ".join(formatter.format(record).splitlines())
    found = {"time": rfc3339(record.created), "level": record.levelname.lower(), "text": text[:LINE_MOST]}
    if record.name.endswith(".worker"):
        found["from"] = "worker"
    label = getattr(record, "about", "")
    if label:
        found["op"], _, found["command"] = label.partition("/")
        operation = OPERATIONS.get(found["op"])
        if operation is not None and operation.is_job:
            found["job"] = key_of(label)
    return found


class _Formatter(logging.Formatter):
    """Writes one line a record. The journal gets its level as a prefix, and people there no time, which it adds itself."""

    def __init__(self, shape: str, journal: bool) -> None:
        super().__init__()
        self._shape = shape
        self._journal = journal
        self._plain = logging.Formatter("%(message)s")

    def format(self, record: logging.LogRecord) -> str:
        fields = _fields(record, self._plain)
        if self._shape == "json":
            line = msgspec.json.encode(fields).decode()
        elif self._shape == "logfmt":
            line = _logfmt(fields)
        else:
            when, level, text = (fields.pop(name) for name in ("time", "level", "text"))
            line = " ".join((text, _logfmt(fields))) if fields else text
            if not self._journal:
                line = f"{when} {level} {line}"
        return f"<{_PRIORITY.get(record.levelno, 6)}>{line}" if self._journal else line


def _logfmt(fields: dict[str, str]) -> str:
    return " ".join(f"{name}={_quoted(value)}" for name, value in fields.items())


def _quoted(value: str) -> str:
    return value if value and _PLAIN.issuperset(value) else msgspec.json.encode(value).decode()


class Ring(logging.Handler):
    """The last lines in two files of bounded size, as JSON. A disk that takes none loses them, and nothing else."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._plain = logging.Formatter("%(message)s")
        self._file: FileIO | None = None
        self._size = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._write(msgspec.json.encode(_fields(record, self._plain)) + b"\n")
        except OSError:
            pass  # the line is on stderr

    def _write(self, line: bytes) -> None:
        if self._file is None:
            self._file = FileIO(self._path, "a")
            self._size = self._file.tell()
        if self._size + len(line) > FILE_BYTES:
            self._let_go()
            self._path.replace(_before(self._path))
            self._file, self._size = FileIO(self._path, "a"), 0
        self._size += self._file.write(line)

    def close(self) -> None:
        self._let_go()
        super().close()

    def _let_go(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _before(path: Path) -> Path:
    return path.with_name(f"{path.stem}.1{path.suffix}")


def last(folder: Path, lines: int, level: str, command: str) -> list[list[dict[str, Any]]]:
    """Return the last lines kept in ``folder``, oldest first, in parts of at most PART_BYTES.

    Only those of ``level`` or above, and, unless it is empty, about the command with the id ``command``.
    """
    least = logging.getLevelName(level.upper())
    wanted = deque(
        (
            line
            for line in _kept(folder / FILE)
            if logging.getLevelName(line["level"].upper()) >= least and command in ("", line.get("command"))
        ),
        maxlen=lines,
    )
    parts: list[list[dict[str, Any]]] = []
    room = 0
    for line in wanted:
        size = len(msgspec.json.encode(line)) + 1
        if size > room:
            parts.append([])
            room = PART_BYTES
        parts[-1].append(line)
        room -= size
    return parts


def _kept(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines that are kept; what a crash or somebody else has left unreadable is passed over."""
    for file in (_before(path), path):
        try:
            raw = file.read_bytes()
        except OSError:
            continue
        for text in raw.splitlines():
            try:
                line = from_json(text, _line.decode)
            except msgspec.DecodeError:
                continue
            if isinstance(line.get("level"), str) and isinstance(logging.getLevelName(line["level"].upper()), int):
                yield line
