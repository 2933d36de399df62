"""Image folders: ``DIR/<class>/*.jpg|png``, or the same below ``DIR/train`` and ``DIR/val``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.worker.data import copies, images
from reconvene_agent.worker.data.cache import Dtype, Found, Sink
from reconvene_agent.worker.data.classes import number_classes
from reconvene_agent.worker.data.images import BrokenImageError
from reconvene_agent.worker.data.listing import Entry, Listing, list_folder
from reconvene_agent.worker.data.skipped import Skipping, shown
from reconvene_agent.worker.data.split import held_out

# Beyond this share of unusable files something is wrong with the disk or the camera, and a model would learn from the rest.
MAX_UNUSABLE_SHARE = 0.5

Report = Callable[[float, str], None]


class ImageFolder:
    """An image folder as it is found; unusable files are skipped, counted and named."""

    dtype: Dtype = np.dtype(np.uint8)

    def __init__(self, folder: Path, spec: ModelSpec, labels: Sequence[str], validation: float, report: Report) -> None:
        """Look what is there, without reading a file.

        Raises:
            AgentError: NO_DATA when there are no images, BAD_DATA when the model takes none or no class fits the bundle.
        """
        channels = spec.input[0]
        if channels not in images.MODES:
            raise AgentError(f"image files cannot fill {channels} channels: bring the data as .npz", ErrorCode.BAD_DATA)
        self.shape = spec.input
        self._folder = folder
        self._validation = validation
        self._report = report
        self._listing: Listing = list_folder(folder, images.SUFFIXES, images.OTHER_FORMATS)
        self._numbers, self._labels = number_classes(self._listing.classes, spec, labels)
        self._entries = [entry for entry in self._listing.entries if entry.label in self._numbers]
        if not self._entries:
            raise AgentError(f"{folder} holds no images: put them as {folder}/<class>/<name>.jpg or .png", ErrorCode.NO_DATA)
        self.least_bytes = len(self._entries) * int(np.prod(self.shape))

    def files(self) -> Iterable[tuple[str, int, int]]:
        return ((entry.name, entry.size, entry.changed) for entry in self._entries)

    def fill(self, sink: Sink) -> Found:
        """Decode every image once.

        Raises:
            AgentError: BAD_DATA when too many files are unusable, NO_DATA when the folder is gone.
        """
        skipping = Skipping()
        self._listing.tell(skipping, self._numbers)
        wanted = copies.without(self._entries, skipping, images.MAX_FILE_BYTES, self._checked)
        for index, entry in enumerate(wanted):
            if index % 50 == 0:
                self._report(index / len(wanted), f"reading image {index + 1} of {len(wanted)}")
            try:
                content = images.content_of(entry.path)
                image = images.decode(content, self.shape)
            except BrokenImageError as error:
                skipping.skip(error.reason, entry.name, str(error))
                continue
            aside = entry.root == "val" or (entry.root == "" and held_out(content, self._validation))
            sink.put(image[np.newaxis], np.array([self._numbers[entry.label]]), aside)
        if not self._folder.is_dir():
            raise AgentError(f"{self._folder} vanished while it was read: bring it back and try again", ErrorCode.NO_DATA)
        skipped = skipping.outcome()
        if skipped.unusable > MAX_UNUSABLE_SHARE * len(self._entries):
            raise AgentError(
                f"{skipped.unusable} of {len(self._entries)} images in {shown(self._folder)} cannot be used, such as "
                f"{skipped.named()[0]}",
                ErrorCode.BAD_DATA,
            )
        return Found(self._labels, skipped)

    def _checked(self, index: int, _entry: Entry) -> None:
        if index % 50 == 0:
            self._report(0.0, "looking for copies")
