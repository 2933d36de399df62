"""Decoded inputs on disk: written once in order, synced, renamed into place, and from then on read memory-mapped.

A run reads its inputs from here however often it is interrupted, so what becomes of the files they came from does it no harm.
"""

from __future__ import annotations

import mmap
import shutil
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from reconvene_agent.core import atomic
from reconvene_agent.core.census import Census
from reconvene_agent.core.decoding import from_json
from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.worker.data.dataset import Part
from reconvene_agent.worker.data.inputs import Inputs
from reconvene_agent.worker.data.pages import Pages
from reconvene_agent.worker.data.skipped import Skipped

MIB = 1 << 20
LEFT_FREE_MB, LEFT_FREE_SHARE = 32.0, 0.02
"""So much of the disk, or that share of a small one, is left free: the agent's journal needs room too."""
Dtype: TypeAlias = np.dtype[np.uint8] | np.dtype[np.float32]

_SIDES = ("train", "held_out")
_FACTS, _MARKS = "facts.json", "marks"


class Found(Struct, frozen=True):
    """What a source told when it was read; ``census`` counts its files as they were before."""

    labels: tuple[str, ...]
    skipped: Skipped
    census: Census | None = None


class _Facts(Struct, frozen=True):
    """``question`` names all that decides over how files become inputs; ``counts`` are of both sides."""

    question: str
    shape: tuple[int, ...]
    dtype: str
    counts: tuple[int, int]
    found: Found


_facts = msgspec.json.Decoder(_Facts)


@dataclass(frozen=True)
class Decoded:
    """The inputs of both sides, mapped into memory."""

    train: Part
    held_out: Part
    found: Found


@dataclass(frozen=True)
class Room:
    """How many bytes decoded inputs may take, and what to do about it when they need more."""

    bytes: float
    advice: str

    def check(self, needed: int) -> None:
        """Refuse what does not fit.

        Raises:
            AgentError: NO_DISK.
        """
        if needed > self.bytes:
            raise AgentError(
                f"the decoded inputs need {needed / MIB:,.4g} MiB on disk at least, and may take "
                f"{max(0.0, self.bytes) / MIB:,.4g}: {self.advice}",
                ErrorCode.NO_DISK,
            )


class Sink:
    """Takes decoded inputs, one or many at a time, and writes them down.

    Raises:
        AgentError: NO_DISK where they become more than may be kept.
    """

    def __init__(self, folder: Path, shape: tuple[int, ...], dtype: Dtype, room: Room) -> None:
        self._files = [(folder / side).open("xb") for side in _SIDES]
        self._classes: tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]] = ([], [])
        self._shape = shape
        self._dtype = dtype
        self._room = room
        self._bytes = 0

    def put(self, inputs: Inputs, classes: NDArray[np.int64], held_out: bool) -> None:
        """Add inputs (N, …) and their classes (N,) to a side."""
        assert inputs.shape[1:] == self._shape
        content = np.ascontiguousarray(inputs, dtype=self._dtype)
        self._bytes += content.nbytes
        self._room.check(self._bytes)
        self._files[held_out].write(content.data)
        self._classes[held_out].append(np.asarray(classes, dtype=np.int64))

    def close(self) -> tuple[int, int]:
        """Write down what is left, the classes too; return how many inputs there are on both sides."""
        counts = []
        for file, some in zip(self._files, self._classes, strict=True):
            classes = np.concatenate([np.empty(0, dtype=np.int64), *some])
            file.close()
            Path(f"{file.name}.classes").write_bytes(classes.tobytes())
            counts.append(len(classes))
        return counts[0], counts[1]

    def abandon(self) -> None:
        """Let go of the files; what could not be written any more does not matter."""
        for file in self._files:
            with suppress(OSError):
                file.close()


class Source(Protocol):
    """Local data that can be decoded."""

    shape: tuple[int, ...]
    dtype: Dtype
    least_bytes: int
    """What the decoded inputs take, as far as it is known before they are decoded."""

    def files(self) -> Iterable[tuple[str, int, int]]:
        """Return the name, size and time of change of every file that is read."""

    def fill(self, sink: Sink) -> Found:
        """Decode everything into a sink."""


class Cache:
    """The decoded inputs of one run, in ``folder``; they take ``most_mb`` at most where that is given.

    What is not ``durable`` need not survive a power cut, and costs no wait for the disk.
    """

    def __init__(self, folder: Path, most_mb: float | None = None, durable: bool = True) -> None:
        self._durable = durable
        self._folder = folder
        self._most_mb = most_mb

    def clear(self) -> None:
        """Forget what was decoded, and the folder around it if nothing else is there."""
        shutil.rmtree(self._folder, ignore_errors=True)
        with suppress(OSError):
            self._folder.parent.rmdir()

    def _tidy(self) -> None:
        if not self._folder.exists():
            self.clear()

    def recall(self, question: str, marks: NDArray[np.uint64] | None) -> Decoded | None:
        """Return the inputs that were decoded for the same question, or None.

        ``marks`` stand for the files that there are now: all those that were decoded must be among them, as they were; newer
        ones are for the next run. Without ``marks`` whatever was decoded is right.
        """
        try:
            facts = from_json((self._folder / _FACTS).read_bytes(), _facts.decode)
            known = np.frombuffer((self._folder / _MARKS).read_bytes(), dtype=np.uint64)
            if facts.question != question or (marks is not None and not np.isin(known, marks).all()):
                return None
            return self._open(facts)
        except (OSError, ValueError, msgspec.DecodeError):
            return None

    def _open(self, facts: _Facts) -> Decoded:
        """Map both sides; raise ValueError where a file is not as long as it was."""
        parts = []
        for side, count in zip(_SIDES, facts.counts, strict=True):
            classes = np.frombuffer((self._folder / f"{side}.classes").read_bytes(), dtype=np.int64)
            if len(classes) != count:
                raise ValueError(f"{side} has {len(classes)} classes and {count} inputs")
            inputs, pages = _mapped(self._folder / side, (count, *facts.shape), np.dtype(facts.dtype))
            parts.append(Part(inputs, classes.copy(), pages))
        return Decoded(parts[0], parts[1], facts.found)

    def decode(self, question: str, source: Source, marks: NDArray[np.uint64], counted: Census | None) -> Decoded:
        """Decode what a source holds, in place of whatever was decoded before.

        Raises:
            AgentError: NO_DISK where it does not fit, and what the source raises; nothing is left behind then.
        """
        aside = self._folder.with_name(f"{self._folder.name}.partial")
        for old in (aside, self._folder):
            shutil.rmtree(old, ignore_errors=True)
        with ExitStack() as cleaning, atomic.full_disk_is_no_disk(f"decoding inputs to {self._folder}"):
            cleaning.callback(self._tidy)
            cleaning.callback(shutil.rmtree, aside, ignore_errors=True)
            aside.mkdir(parents=True)
            room = self._room(aside)
            room.check(source.least_bytes)
            sink = Sink(aside, source.shape, source.dtype, room)
            cleaning.callback(sink.abandon)
            found = msgspec.structs.replace(source.fill(sink), census=counted)
            facts = _Facts(question, source.shape, source.dtype.name, sink.close(), found)
            (aside / _MARKS).write_bytes(marks.tobytes())
            (aside / _FACTS).write_bytes(msgspec.json.encode(facts))
            if self._durable:
                atomic.sync_tree(aside)
            aside.rename(self._folder)
            if self._durable:
                atomic.sync_folder(self._folder.parent)
        return self._open(facts)

    def _room(self, folder: Path) -> Room:
        disk = shutil.disk_usage(folder)
        free = disk.free - min(LEFT_FREE_MB * MIB, LEFT_FREE_SHARE * disk.total)
        if self._most_mb is not None and self._most_mb * MIB <= free:
            return Room(self._most_mb * MIB, "raise specialize.cache_mb, or take inputs away")
        return Room(free, f"free some of the disk that holds {folder.parent}, or take inputs away")


def _mapped(path: Path, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> tuple[Inputs, Pages | None]:
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if path.stat().st_size != size:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, {size} are expected")
    if not size:
        return np.empty(shape, dtype=dtype), None  # of nothing there is no map
    with path.open("rb") as file:
        mapping = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
    return np.frombuffer(mapping, dtype=dtype).reshape(shape), Pages(mapping)
