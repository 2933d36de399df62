"""One image file to one array, the same way for training and for prediction."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""What an image file becomes for a model of so many input channels."""
MAX_PIXELS = 64_000_000

Pixels = NDArray[np.uint8]


class BrokenImageError(Exception):
    """A file that is no image, is cut short, or unpacks to an unreasonable size; the text says which."""


def decode(content: bytes, input_shape: tuple[int, int, int]) -> Pixels:
    """Decode an image to (C, H, W) uint8: one channel is grey, three are RGB; another size is scaled to fit.

    Raises:
        BrokenImageError: the bytes cannot be decoded.
    """
    channels, height, width = input_shape
    mode = MODES.get(channels)
    if mode is None:
        raise BrokenImageError(f"an image file cannot fill {channels} channels")
    try:
        with _without_notices(), Image.open(io.BytesIO(content), formats=("JPEG", "PNG")) as image:
            _refuse_bomb(image)
            image.draft(mode, (width, height))
            # Cameras store the way they were held as a tag; only upright pixels are comparable.
            upright = _eight_bit(ImageOps.exif_transpose(image)).convert(mode)
    except (BrokenImageError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise BrokenImageError("it is neither a JPEG nor a PNG image") from error
    except Exception as error:
        raise BrokenImageError(str(error) or type(error).__name__) from error
    if upright.size != (width, height):
        upright = upright.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(upright, dtype=np.uint8)
    return pixels[np.newaxis] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


@contextmanager
def _without_notices() -> Iterator[None]:
    """Keep Pillow's warnings quiet: damaged tags say nothing of the pixels, and doubtful sizes are refused here anyway."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _refuse_bomb(image: Image.Image) -> None:
    """Refuse, before anything is unpacked, an image that would take more memory than any camera's."""
    if image.width * image.height > MAX_PIXELS:
        raise BrokenImageError(f"{image.width}×{image.height} pixels are too many")


def _eight_bit(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey to eight bits; Pillow's own conversion would cut it off at white."""
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)) if image.mode.startswith("I") else image


def read(path: Path, input_shape: tuple[int, int, int]) -> Pixels:
    """Read and decode an image file.

    Raises:
        BrokenImageError: it cannot be read or decoded.
    """
    try:
        return decode(path.read_bytes(), input_shape)
    except OSError as error:
        raise BrokenImageError(error.strerror or str(error)) from error
