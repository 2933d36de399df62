from __future__ import annotations

import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reconvene_agent.worker import memory
from reconvene_agent.worker.data import images
from reconvene_agent.worker.data.images import BrokenImageError
from support.pictures import encoded, noise, png_header

RED = (255, 0, 0)


def one_colour(content: bytes, channels: int = 3) -> list[int]:
    """Decode an image that is all of one colour, and return the colour."""
    pixels = images.decode(content, (channels, 4, 4))
    assert pixels.shape == (channels, 4, 4)
    assert pixels.dtype == np.uint8
    values = pixels.reshape(channels, -1)
    assert np.ptp(values, axis=1).max() <= 1
    return [int(value) for value in values[:, 0]]


def test_pixels_are_those_of_the_file_channels_first() -> None:
    image = noise(1)
    assert np.array_equal(images.decode(encoded(image), (3, 8, 8)), np.asarray(image).transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (encoded(Image.new("RGB", (4, 4), RED)), [255, 0, 0]),
        (encoded(Image.new("RGB", (4, 4), RED), "JPEG", quality=100, subsampling=0), [254, 0, 0]),
        (encoded(Image.new("RGBA", (4, 4), (*RED, 10))), [255, 0, 0]),
        (encoded(Image.new("L", (4, 4), 200)), [200, 200, 200]),
        (encoded(Image.new("LA", (4, 4), (200, 10))), [200, 200, 200]),
        (encoded(Image.new("1", (4, 4), 1)), [255, 255, 255]),
        (encoded(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "JPEG", quality=100, subsampling=0), [255, 0, 0]),
        (encoded(Image.fromarray(np.full((4, 4), 0x8000, dtype=np.uint16))), [128, 128, 128]),
        (encoded(Image.new("RGB", (4, 4), RED).quantize(4)), [255, 0, 0]),
    ],
    ids=["rgb", "jpeg", "alpha", "grey", "grey with alpha", "black and white", "cmyk", "16 bit", "palette"],
)
def test_every_kind_of_image_becomes_colour(content: bytes, expected: list[int]) -> None:
    assert one_colour(content) == expected


def test_a_palette_with_transparent_entries_keeps_its_colours() -> None:
    image = Image.new("P", (4, 4))
    image.putpalette([*RED, 0, 255, 0])
    assert one_colour(encoded(image, transparency=b"\x00\xff")) == [255, 0, 0]


@pytest.mark.parametrize(("channels", "expected"), [(1, [76]), (3, [255, 0, 0]), (4, [255, 0, 0, 255])])
def test_the_model_decides_how_many_channels_there_are(channels: int, expected: list[int]) -> None:
    assert one_colour(encoded(Image.new("RGB", (4, 4), RED)), channels) == expected


def test_inks_fill_four_channels_too() -> None:
    cmyk = encoded(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "JPEG", quality=100, subsampling=0)
    assert one_colour(cmyk, 4) == [255, 0, 0, 255]


def test_sixteen_bits_keep_their_order_and_range() -> None:
    ramp = np.linspace(0, 65535, 64, dtype=np.uint16).reshape(8, 8)
    pixels = images.decode(encoded(Image.fromarray(ramp)), (1, 8, 8))[0].ravel()
    assert np.all(np.diff(pixels.astype(int)) >= 0)
    assert (pixels[0], pixels[-1]) == (0, 255)


# How a camera stores an upright picture under each value of the tag.
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("orientation", STORED)
def test_an_image_is_turned_upright_as_its_tag_says(orientation: int) -> None:
    upright = Image.new("L", (8, 8), 0)
    upright.paste(255, (0, 0, 4, 4))  # white in the upper left
    turn = STORED[orientation]
    stored = upright if turn is None else upright.transpose(turn)
    tags = Image.Exif()
    tags[0x0112] = orientation
    pixels = images.decode(encoded(stored, "JPEG", quality=95, exif=tags), (1, 8, 8))[0]
    assert pixels[:4, :4].min() > 200
    assert pixels[4:].max() < 55
    assert pixels[:, 4:].max() < 55


@pytest.mark.parametrize(("width", "height"), [(4, 4), (200, 100), (8, 300), (1, 1)])
def test_another_size_is_scaled_to_the_models(width: int, height: int) -> None:
    for kind in ("PNG", "JPEG"):
        assert images.decode(encoded(Image.new("RGB", (width, height), RED), kind), (3, 6, 10)).shape == (3, 6, 10)


def test_scaling_down_averages_and_does_not_pick_pixels() -> None:
    checks = Image.fromarray((np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8))
    pixels = images.decode(encoded(checks), (1, 8, 8))
    assert pixels.min() > 100
    assert pixels.max() < 155


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "neither a JPEG nor a PNG"),
        (b"hello", "neither a JPEG nor a PNG"),
        (encoded(noise(1), "GIF"), "neither a JPEG nor a PNG"),
        (encoded(noise(1))[:-30], "truncated|broken|incomplete|unrecognized"),
        (encoded(noise(1, 64), "JPEG")[:-400], "truncated"),
        (png_header(8, 8), "truncated|incomplete|broken"),
        (png_header(30_000, 30_000), "900000000 pixels"),
        (png_header(9_000, 9_000), "9000×9000 pixels are too many"),
        (png_header(0, 8), "."),
    ],
    ids=["empty", "text", "gif", "png cut short", "jpeg cut short", "no pixels", "bomb", "too large", "no width"],
)
def test_a_broken_image_says_why_in_a_line_that_is_the_same_each_time(content: bytes, reason: str) -> None:
    texts = []
    for _ in range(2):
        with pytest.raises(BrokenImageError, match=reason) as caught:
            images.decode(content, (3, 8, 8))
        texts.append(str(caught.value))
    assert texts[0] == texts[1]
    assert len(texts[0].splitlines()) == 1


def test_a_bomb_costs_neither_memory_nor_time(tmp_path: Path) -> None:
    """A whole one: 30 000 by 30 000 pixels, 112 MB in one bit each, and 3.6 GB once they are unpacked to colours."""
    side, row = 30_000, b"\0" * (1 + 30_000 // 8)
    deflate = zlib.compressobj(1)
    content = b"".join(deflate.compress(row * 1000) for _ in range(side // 1000)) + deflate.flush()
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)), (b"IDAT", content), (b"IEND", b""))
    parts = [struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks]
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    before = memory.settled_mb()
    memory.start_peak()
    started = time.process_time()
    with pytest.raises(BrokenImageError, match="900000000 pixels") as caught:
        images.read(path, (3, 8, 8))
    assert caught.value.reason == "too_large"
    assert time.process_time() - started < 0.5
    assert memory.peak_mb() - before < 8


@pytest.mark.parametrize(
    ("content", "accepted"),
    [
        (encoded(Image.new("L", (7_000, 5_000)), "JPEG"), True),
        (encoded(Image.new("L", (7_000, 5_000)), "JPEG", progressive=True), False),
        (png_header(7_000, 5_000), False),
    ],
    ids=["scaled down as it is unpacked", "progressive", "png"],
)
def test_what_would_be_unpacked_whole_may_be_less_large(content: bytes, accepted: bool) -> None:
    if accepted:
        assert images.decode(content, (1, 8, 8)).shape == (1, 8, 8)
        return
    with pytest.raises(BrokenImageError, match="7000×5000 pixels are too many to unpack") as caught:
        images.decode(content, (1, 8, 8))
    assert caught.value.reason == "too_large"


def test_a_mode_that_nothing_is_known_of_is_not_guessed_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_FAITHFUL", frozenset({"RGB"}))
    with pytest.raises(BrokenImageError, match="the colour mode L cannot be converted") as caught:
        images.decode(encoded(Image.new("L", (4, 4))), (3, 4, 4))
    assert caught.value.reason == "colour"


def test_a_damaged_tag_does_no_harm() -> None:
    damaged = b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x05\x00\x12\x01\x03"
    assert one_colour(encoded(Image.new("RGB", (4, 4), RED), "JPEG", quality=100, subsampling=0, exif=damaged)) == [254, 0, 0]


def test_two_channels_cannot_be_filled() -> None:
    with pytest.raises(BrokenImageError, match="cannot fill 2 channels"):
        images.decode(encoded(noise(1)), (2, 8, 8))


def test_want_of_memory_is_not_the_images_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(images.ImageOps, "exif_transpose", none_left)
    with pytest.raises(MemoryError):
        images.decode(encoded(noise(1)), (3, 8, 8))


def test_a_file_that_cannot_be_opened_is_broken(tmp_path: Path) -> None:
    with pytest.raises(BrokenImageError, match="No such file"):
        images.read(tmp_path / "none.png", (3, 8, 8))
    with pytest.raises(BrokenImageError, match="Is a directory"):
        images.read(tmp_path, (3, 8, 8))
