"""Image folders: ``DIR/<class>/*.jpg|png``, or the same below ``DIR/train`` and ``DIR/val``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.worker.data import images
from reconvene_agent.worker.data.dataset import Dataset, Part, Skipped
from reconvene_agent.worker.data.images import BrokenImageError, Pixels
from reconvene_agent.worker.data.split import held_out

# Beyond this share of broken files something is wrong with the disk or the camera, and a model would learn from the rest.
MAX_BROKEN_SHARE = 0.5
NAMED_EXAMPLES = 5

Report = Callable[[float, str], None]


def load(folder: Path, spec: ModelSpec, labels: Sequence[str], validation: float, report: Report) -> Dataset:
    """Read an image folder; broken files are skipped, counted and named.

    Raises:
        AgentError: NO_DATA when there are no images, BAD_DATA when classes do not fit the bundle or too many files are broken.
    """
    parted = (folder / "train").is_dir() and (folder / "val").is_dir()
    roots = [folder / "train", folder / "val"] if parted else [folder]
    names = sorted({entry.name for root in roots for entry in _class_folders(root)})
    numbers = _number(names, spec, labels)
    files = [(root_index, numbers[entry.name], path) for root_index, root in enumerate(roots) for entry, path in _files(root)]
    if not files:
        raise AgentError(f"{folder} holds no images: put them as {folder}/<class>/<name>.jpg or .png", ErrorCode.NO_DATA)
    parts: tuple[list[tuple[Pixels, int]], list[tuple[Pixels, int]]] = ([], [])
    broken: list[str] = []
    for index, (root_index, number, path) in enumerate(files):
        if index % 50 == 0:
            report(index / len(files), f"reading image {index + 1} of {len(files)}")
        try:
            content = path.read_bytes()
            pixels = images.decode(content, spec.input)
        except (BrokenImageError, OSError) as error:
            broken.append(f"{path.relative_to(folder)}: {error}")
            continue
        side = root_index if parted else int(held_out(content, validation))
        parts[side].append((pixels, number))
    if len(broken) > MAX_BROKEN_SHARE * len(files):
        raise AgentError(
            f"{len(broken)} of {len(files)} images in {folder} cannot be read, {broken[0]} among them", ErrorCode.BAD_DATA
        )
    present = tuple(labels) or tuple(names)
    train, val = (_part(part, spec) for part in parts)
    return Dataset(train, val, present, Skipped(len(broken), tuple(broken[:NAMED_EXAMPLES])))


def _class_folders(root: Path) -> list[Path]:
    return sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _files(root: Path) -> Iterator[tuple[Path, Path]]:
    for entry in _class_folders(root):
        for path in sorted(entry.iterdir()):
            if path.suffix.lower() in images.SUFFIXES and not path.name.startswith(".") and path.is_file():
                yield entry, path


def _number(names: Sequence[str], spec: ModelSpec, labels: Sequence[str]) -> dict[str, int]:
    """Give each class folder the model's output that stands for it: by label, else by the order of names."""
    if labels:
        unknown = [name for name in names if name not in labels]
        if unknown:
            some = ", ".join(labels[:8]) + (", …" if len(labels) > 8 else "")
            raise AgentError(f"class folder {unknown[0]!r} is not among the bundle's labels ({some})", ErrorCode.BAD_DATA)
        return {label: index for index, label in enumerate(labels)}
    if names and len(names) != spec.classes:
        raise AgentError(
            f"there are {len(names)} class folders, but the bundle has {spec.classes} classes and no labels to match them by",
            ErrorCode.BAD_DATA,
        )
    return {name: index for index, name in enumerate(names)}


def _part(pairs: Sequence[tuple[Pixels, int]], spec: ModelSpec) -> Part:
    stacked = np.stack([pixels for pixels, _ in pairs]) if pairs else np.empty((0, *spec.input), dtype=np.uint8)
    return Part(stacked, np.array([number for _, number in pairs], dtype=np.int64))
