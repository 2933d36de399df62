"""What lies in a folder of classes: ``DIR/<class>/*``, or the same below ``DIR/train`` and ``DIR/val``. Nothing is read."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.worker.data.skipped import Skipping, shown

PARTS = ("train", "val")


@dataclass(frozen=True)
class Entry:
    """A file of a class. ``root`` is ``train``, ``val``, or empty where the folder is not parted; ``changed`` in ns."""

    path: Path
    name: str
    label: str
    root: str
    size: int
    changed: int


@dataclass
class Listing:
    """The class folders by name, their files in order, and the names of what is no use with the reason."""

    classes: tuple[str, ...] = ()
    entries: list[Entry] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    other_formats: list[str] = field(default_factory=list)

    def tell(self, skipping: Skipping, known: Collection[str]) -> None:
        """Count what is left out, the files of classes that are not ``known`` too."""
        for entry in self.entries:
            if entry.label not in known:
                skipping.skip("unknown_class", entry.name, f"class {shown(entry.label)} is not among the bundle's labels")
        for name in self.outside:
            skipping.skip("outside", name, "a link that leads out of the data folder")
        for name, why in self.unreadable:
            skipping.skip("unreadable", name, why)
        for name in self.other_formats:
            skipping.skip("format", name, "only JPEG and PNG are read")


def list_folder(folder: Path, suffixes: Collection[str], others: Collection[str] = ()) -> Listing:
    """Find the files with such ``suffixes`` one level below the class folders; ``others`` are worth being told of.

    What is hidden, is no file or has another name is passed over. Links are followed as long as they stay inside ``folder``.

    Raises:
        AgentError: NO_DATA when the folder cannot be read.
    """
    found = Listing()
    home = os.path.realpath(folder)
    try:
        parted = all((folder / part).is_dir() for part in PARTS)
        roots = [(part, folder / part) for part in PARTS] if parted else [("", folder)]
        classes: set[str] = set()
        for root, top in roots:
            for entry in _sorted(top):
                if not _is_class(found, entry, root, home):
                    continue
                classes.add(entry.name)
                for file in _sorted(Path(entry.path)):
                    _take(found, file, root, entry.name, home, (suffixes, others))
    except OSError as error:
        where = shown(error.filename or folder)
        raise AgentError(f"{shown(folder)} cannot be read: {where}: {error.strerror}", ErrorCode.NO_DATA) from error
    found.classes = tuple(sorted(classes))
    return found


def _sorted(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return iter(sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name))


def _is_class(found: Listing, entry: os.DirEntry[str], root: str, home: str) -> bool:
    """Whether this is a folder to look into; what stands in for one but leads elsewhere is noted."""
    name = str(Path(root, entry.name))
    try:
        if not entry.is_dir():
            return False
    except OSError as error:  # links that lead in a circle
        found.unreadable.append((name, error.strerror or str(error)))
        return False
    if _leads_out(entry, home):
        found.outside.append(name)
        return False
    return True


def _leads_out(entry: os.DirEntry[str], home: str) -> bool:
    if not entry.is_symlink():
        return False
    return os.path.commonpath((home, os.path.realpath(entry.path))) != home


def _take(
    found: Listing, file: os.DirEntry[str], root: str, label: str, home: str, known: tuple[Collection[str], Collection[str]]
) -> None:
    name = str(Path(root, label, file.name))
    suffix = Path(file.name).suffix.lower()
    if suffix in known[1]:
        found.other_formats.append(name)
    if suffix not in known[0]:
        return
    try:
        facts = file.stat()
    except OSError as error:
        found.unreadable.append((name, error.strerror or str(error)))
        return
    if not stat.S_ISREG(facts.st_mode):
        return
    if _leads_out(file, home):
        found.outside.append(name)
        return
    found.entries.append(Entry(Path(file.path), name, label, root, facts.st_size, facts.st_mtime_ns))
