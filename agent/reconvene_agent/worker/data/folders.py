"""Image folders: ``DIR/<class>/*.jpg|png``, or the same below ``DIR/train`` and ``DIR/val``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.worker.data import images
from reconvene_agent.worker.data.dataset import Dataset, Part, Skipped
from reconvene_agent.worker.data.images import BrokenImageError
from reconvene_agent.worker.data.inputs import items, kind_of
from reconvene_agent.worker.data.split import held_out

# Beyond this share of broken files something is wrong with the disk or the camera, and a model would learn from the rest.
MAX_BROKEN_SHARE = 0.5
NAMED_EXAMPLES = 5

Report = Callable[[float, str], None]


def load(folder: Path, spec: ModelSpec, labels: Sequence[str], validation: float, report: Report) -> Dataset:
    """Read an image folder; broken files are skipped, counted and named.

    Raises:
        AgentError: NO_DATA when there are no images, BAD_DATA when the model takes none, classes do not fit the bundle, or too
            many files are broken.
    """
    kind = kind_of(spec.input)
    if kind != "image":
        raise AgentError(
            f"{spec.architecture} takes {items(kind)} of {'×'.join(map(str, spec.input))}, not images: bring the data as .npz",
            ErrorCode.BAD_DATA,
        )
    channels, height, width = spec.input
    if channels not in images.MODES:
        raise AgentError(f"image files cannot fill {channels} channels: bring the data as .npz", ErrorCode.BAD_DATA)
    try:
        parted = (folder / "train").is_dir() and (folder / "val").is_dir()
        roots = [folder / "train", folder / "val"] if parted else [folder]
        names = sorted({entry.name for root in roots for entry in _class_folders(root)})
        found = [(index, entry.name, path) for index, root in enumerate(roots) for entry, path in _files(root)]
    except OSError as error:
        raise AgentError(f"{folder} cannot be read: {_shown(error.filename)}: {error.strerror}", ErrorCode.NO_DATA) from error
    numbers = _number(names, spec, labels)
    if not found:
        raise AgentError(f"{folder} holds no images: put them as {folder}/<class>/<name>.jpg or .png", ErrorCode.NO_DATA)
    # Training images fill the arrays from the front and held-out ones from the back, so that none is ever copied.
    pixels = np.empty((len(found), *spec.input), dtype=np.uint8)
    classes = np.empty(len(found), dtype=np.int64)
    front, back = 0, len(found)
    broken: list[str] = []
    for index, (root, name, path) in enumerate(found):
        if index % 50 == 0:
            report(index / len(found), f"reading image {index + 1} of {len(found)}")
        try:
            content = path.read_bytes()
            image = images.decode(content, (channels, height, width))
        except (BrokenImageError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            broken.append(f"{_shown(path.relative_to(folder))}: {reason}")
            continue
        if root == 1 or (not parted and held_out(content, validation)):
            back -= 1
            place = back
        else:
            place = front
            front += 1
        pixels[place], classes[place] = image, numbers[name]
    if len(broken) > MAX_BROKEN_SHARE * len(found):
        raise AgentError(
            f"{len(broken)} of {len(found)} images in {folder} cannot be read, such as {broken[0]}", ErrorCode.BAD_DATA
        )
    train, held = Part(pixels[:front], classes[:front]), Part(pixels[back:], classes[back:])
    return Dataset(train, held, tuple(labels) or tuple(names), Skipped(len(broken), tuple(broken[:NAMED_EXAMPLES])))


def _class_folders(root: Path) -> list[Path]:
    return sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _files(root: Path) -> Iterator[tuple[Path, Path]]:
    for entry in _class_folders(root):
        for path in sorted(entry.iterdir()):
            if path.suffix.lower() in images.SUFFIXES and not path.name.startswith(".") and path.is_file():
                yield entry, path


def _number(names: Sequence[str], spec: ModelSpec, labels: Sequence[str]) -> dict[str, int]:
    """Give each class folder the model's output that stands for it: by label, else by the order of names."""
    unreadable = [name for name in names if _shown(name) != name]
    if unreadable:
        raise AgentError(f"the name of class folder {unreadable[0]!a} is not UTF-8: rename it", ErrorCode.BAD_DATA)
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


def _shown(name: str | Path) -> str:
    """Return a file's name as text that can be passed on, whatever bytes it is made of."""
    return os.fsencode(name).decode(errors="replace")
