"""One image file to one array, the same way for training and for prediction."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from reconvene_agent.worker.data.skipped import Reason

SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})
OTHER_FORMATS = frozenset({".avif", ".bmp", ".gif", ".heic", ".heif", ".tif", ".tiff", ".webp"})
"""Pictures that are not read; whoever brings them should hear of it."""
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""What an image file becomes for a model of so many input channels."""
MAX_PIXELS = 64_000_000
"""More than any camera's; JPEG files of that size are unpacked at a fraction of it."""
MAX_UNPACKED = 32_000_000
"""Pixels that are unpacked at a time: Pillow takes four bytes for each."""
MAX_FILE_BYTES = 64 * 1024 * 1024

# What converts to grey or RGB with the meaning that was stored. Of the 32-bit modes PNG makes only 16-bit grey.
_FAITHFUL = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "I", "I;16", "I;16B"})

Pixels = NDArray[np.uint8]


class BrokenImageError(Exception):
    """A file that cannot be used as an image; the text says why, ``reason`` in a word."""

    def __init__(self, text: str, reason: Reason = "broken") -> None:
        super().__init__(text)
        self.reason = reason


def decode(content: bytes, input_shape: tuple[int, ...]) -> Pixels:
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
            _refuse_unpacking(image)
            if image.mode not in _FAITHFUL:
                raise BrokenImageError(f"the colour mode {image.mode} cannot be converted", "colour")
            # Cameras store the way they were held as a tag; only upright pixels are comparable.
            upright = _converted(ImageOps.exif_transpose(image), mode)
    except (BrokenImageError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise BrokenImageError(_line(error), "too_large") from error
    except UnidentifiedImageError as error:
        raise BrokenImageError("it is neither a JPEG nor a PNG image") from error
    except Exception as error:
        raise BrokenImageError(_line(error)) from error
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
        raise BrokenImageError(f"{image.width}×{image.height} pixels are too many", "too_large")
    # A progressive one is held whole by its decoder, whatever the size that is asked for.
    if image.info.get("progressive"):
        _refuse_unpacking(image)


def _refuse_unpacking(image: Image.Image) -> None:
    if image.width * image.height > MAX_UNPACKED:
        raise BrokenImageError(f"{image.width}×{image.height} pixels are too many to unpack", "too_large")


def _converted(image: Image.Image, mode: str) -> Image.Image:
    eight_bit = _eight_bit(image)
    if eight_bit.mode == "CMYK" and mode != "RGB":
        eight_bit = eight_bit.convert("RGB")
    return eight_bit.convert(mode)


def _eight_bit(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey to eight bits; Pillow's own conversion would cut it off at white."""
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)) if image.mode.startswith("I") else image


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def content_of(path: Path) -> bytes:
    """Read an image file, unless it is larger than any that would be decoded.

    Raises:
        BrokenImageError: it is too large, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size > MAX_FILE_BYTES:
                raise BrokenImageError(f"the file has more than {MAX_FILE_BYTES >> 20} MiB", "too_large")
            return file.read(MAX_FILE_BYTES)
    except OSError as error:
        raise BrokenImageError(error.strerror or str(error), "unreadable") from error


def read(path: Path, input_shape: tuple[int, ...]) -> Pixels:
    """Read and decode an image file.

    Raises:
        BrokenImageError: it cannot be read or decoded.
    """
    return decode(content_of(path), input_shape)
