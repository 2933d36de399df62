"""Pictures for tests: encoded images of every kind, folders of them, and the digits that the package ships."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import reconvene_agent

DIGITS = Path(reconvene_agent.__file__).parent / "cli/demo/digits/digits.npz"


def encoded(image: Image.Image, kind: str = "PNG", **settings: object) -> bytes:
    """Return an image as the bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **settings)
    return buffer.getvalue()


def noise(seed: int, side: int = 8, mode: str = "RGB") -> Image.Image:
    """Return an image that no other seed gives."""
    channels = len(Image.new(mode, (1, 1)).getbands())
    shape = (side, side, channels) if channels > 1 else (side, side)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8), mode)


def png_header(width: int, height: int) -> bytes:
    """Return a PNG that claims a size and holds no pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def class_folders(root: Path, names: Sequence[str], each: int = 8, seed: int = 0) -> Path:
    """Fill ``root`` with a folder of PNG images for each class."""
    for number, name in enumerate(names):
        folder = root / name
        folder.mkdir(parents=True)
        for index in range(each):
            (folder / f"{index:03}.png").write_bytes(encoded(noise(seed + 1000 * number + index)))
    return root


def digits(count: int | None = None) -> tuple[NDArray[np.uint8], NDArray[np.integer]]:
    """Return the shipped digits, (N, 8, 8), and their classes."""
    with np.load(DIGITS) as archive:
        return archive["x"][:count], archive["y"][:count]
