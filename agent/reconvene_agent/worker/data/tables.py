"""CSV files of sensor data: labelled ones, ``FILE.csv`` or ``DIR/train.csv`` and ``DIR/val.csv``, or ``DIR/<class>/*.csv``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.worker.data import copies, rows
from reconvene_agent.worker.data.cache import Dtype, Found, Sink
from reconvene_agent.worker.data.classes import number_classes
from reconvene_agent.worker.data.folders import MAX_UNUSABLE_SHARE, Report
from reconvene_agent.worker.data.inputs import items, kind_of
from reconvene_agent.worker.data.listing import PARTS, Entry, Listing, list_folder
from reconvene_agent.worker.data.rows import HeaderError, Row
from reconvene_agent.worker.data.skipped import Skipping, shown
from reconvene_agent.worker.data.split import held_out
from reconvene_agent.worker.data.windows import Cutter

SUFFIX = ".csv"
REPORT_EVERY = 1000


@dataclass(frozen=True)
class _Table:
    """A file to read; ``label`` is None where each of its lines has its own, ``root`` as that of an Entry."""

    path: Path
    name: str
    label: str | None
    root: str
    size: int
    changed: int


class Tables:
    """CSV files as they are found: rows of features, or recordings that are cut into windows. Malformed lines are skipped."""

    least_bytes = 0
    dtype: Dtype = np.dtype(np.float32)

    def __init__(
        self, path: Path, spec: ModelSpec, labels: Sequence[str], validation: float, overlap: float, report: Report
    ) -> None:
        """Look what is there; where the bundle has no labels, labelled files are read once for the classes that they name.

        Raises:
            AgentError: NO_DATA when there are no files, BAD_DATA when their columns or classes do not fit the bundle.
        """
        self.shape = spec.input
        self._spec = spec
        self._kind = kind_of(spec.input)
        self._path = path
        self.validation = validation
        self.overlap = overlap
        self._report = report
        self._listing: Listing | None = None
        self._entries: list[Entry] = []
        self._labelled = _labelled(path)
        if self._labelled:
            if labels:
                self._numbers, self._labels = {name: number for number, name in enumerate(labels)}, tuple(labels)
            else:
                self._numbers, self._labels = number_classes(self._names(), spec, ())
            return
        self._listing = list_folder(path, {SUFFIX})
        self._numbers, self._labels = number_classes(self._listing.classes, spec, labels)
        self._entries = [entry for entry in self._listing.entries if entry.label in self._numbers]
        if not self._entries:
            takes = f"{spec.architecture} takes {items(self._kind)} of {'×'.join(map(str, spec.input))}"
            raise AgentError(
                f"{takes}, and {path} holds no CSV files of them: put them as {path}/<class>/<name>.csv, or bring one file with "
                f"a column {rows.LABEL!r}, or an .npz file",
                ErrorCode.NO_DATA,
            )

    def files(self) -> Iterable[tuple[str, int, int]]:
        given = [(table.name, table.size, table.changed) for table in self._labelled]
        return given + [(entry.name, entry.size, entry.changed) for entry in self._entries]

    def fill(self, sink: Sink) -> Found:
        """Read every file once.

        Raises:
            AgentError: BAD_DATA when columns do not fit, or too many lines are malformed.
        """
        skipping = Skipping()
        tables = self._labelled
        if self._listing is not None:
            self._listing.tell(skipping, self._numbers)
            wanted = copies.without(self._entries, skipping, sys.maxsize, lambda *_: self._report(0.0, "looking for copies"))
            tables = [_Table(each.path, each.name, each.label, each.root, each.size, each.changed) for each in wanted]
        taker = _Windows(self, sink, skipping) if self._kind == "window" else _Features(self, sink)
        lines, done, total = 0, 0, max(1, sum(table.size for table in tables))
        for table in tables:
            try:
                for row in self._rows_of(table):
                    lines += 1
                    if lines % REPORT_EVERY == 1:
                        self._report(done / total, f"reading {shown(table.name)}")
                    self._take(row, table, taker, skipping)
            except OSError as error:
                skipping.skip("unreadable", table.name, error.strerror or str(error))
            taker.end()
            done += table.size
        skipped = skipping.outcome()
        if skipped.unusable > MAX_UNUSABLE_SHARE * max(1, lines):
            raise AgentError(
                f"{skipped.unusable} of {lines} lines in {shown(self._path)} cannot be used, such as {skipped.named()[0]}",
                ErrorCode.BAD_DATA,
            )
        return Found(self._labels, skipped)

    def _rows_of(self, table: _Table) -> Iterator[Row]:
        try:
            with table.path.open("rb") as file:
                yield from rows.read(file, self.shape[0], table.label is None)
        except HeaderError as error:
            raise AgentError(f"{shown(table.path)}: {error}", ErrorCode.BAD_DATA) from error

    def _take(self, row: Row, table: _Table, taker: _Features | _Windows, skipping: Skipping) -> None:
        label = row.label if table.label is None else table.label
        where = f"{shown(table.name)} line {row.line}"
        if row.wrong:
            skipping.skip("malformed", where, row.wrong)
            taker.end()
        elif label not in self._numbers:
            skipping.skip("unknown_class", where, f"class {label[:40]!r} is not among the bundle's labels")
            taker.end()
        else:
            taker.take(row, self._numbers[label], table.root, where)

    def _names(self) -> list[str]:
        """Return the classes that labelled files name: in the order of numbers where they are such, else by the alphabet."""
        found: set[str] = set()
        for table in self._labelled:
            found.update(row.label for row in self._rows_of(table) if not row.wrong)
        return sorted(found, key=(lambda name: (int(name), name)) if all(map(str.isdecimal, found)) else str)


class _Features:
    """Takes each line as an input of its own."""

    def __init__(self, tables: Tables, sink: Sink) -> None:
        self._validation = tables.validation
        self._sink = sink

    def take(self, row: Row, number: int, root: str, _where: str) -> None:
        features = np.array([row.numbers], dtype=np.float32)
        aside = root == "val" or (not root and held_out(features.tobytes(), self._validation))
        self._sink.put(features, np.array([number]), aside)

    def end(self) -> None:
        """Lines have nothing to do with each other."""


class _Windows:
    """Takes lines as the readings of recordings: as long as the class stays the same and no line is missing."""

    def __init__(self, tables: Tables, sink: Sink, skipping: Skipping) -> None:
        self._length = tables.shape[1]
        self._cutter = Cutter(self._length, tables.overlap, tables.validation)
        self._sink = sink
        self._skipping = skipping
        self._of: tuple[int, str] | None = None
        self._where = ""

    def take(self, row: Row, number: int, root: str, where: str) -> None:
        if (number, root) != self._of:
            self.end()
            self._of, self._where = (number, root), where
        self._put(self._cutter.add(row.numbers))

    def end(self) -> None:
        """End the recording at hand."""
        if self._of is not None and self._cutter.count < self._length:
            why = f"{self._cutter.count} readings where a window takes {self._length}"
            self._skipping.skip("too_short", f"the recording from {self._where}", why)
        self._put(self._cutter.end())
        self._of = None

    def _put(self, blocks: Iterable[tuple[NDArray[np.float32], bool]]) -> None:
        for windows, aside in blocks:
            assert self._of is not None
            number, root = self._of
            self._sink.put(windows, np.full(len(windows), number), root == "val" or (not root and aside))


def _labelled(path: Path) -> list[_Table]:
    """Return the files whose lines say their class: the one given, or the two parts in a folder."""
    given = [("", path)] if path.is_file() else [(part, path / f"{part}{SUFFIX}") for part in PARTS]
    if not all(file.is_file() for _, file in given):
        return []
    facts = [(file, root, file.stat()) for root, file in given]
    return [_Table(file, file.name, None, root, each.st_size, each.st_mtime_ns) for file, root, each in facts]
