from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconvene_agent.core import atomic, bundle
from reconvene_agent.core.bundle import MANIFEST, WEIGHTS, ModelSpec
from reconvene_agent.core.errors import BundleError, ErrorCode
from support.values import manifest


def refused(folder: Path, reader: Any = bundle.verify) -> str:
    with pytest.raises(BundleError) as caught:
        reader(folder)
    assert caught.value.code is ErrorCode.BAD_BUNDLE
    assert "\n" not in caught.value.message
    return caught.value.message


@pytest.fixture
def shipped(tmp_path: Path) -> Path:
    """Return a bundle with weights."""
    weights = tmp_path / WEIGHTS
    weights.write_bytes(bytes(range(256)) * 64)
    bundle.write_manifest(tmp_path, manifest(files={WEIGHTS: atomic.sha256(weights)}))
    return tmp_path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    written = manifest(labels=tuple("abcdefghij"), seed=2**53 - 1)
    bundle.write_manifest(tmp_path, written)
    assert bundle.read(tmp_path) == written
    assert bundle.verify(tmp_path) == written
    assert not written.ships_weights


def test_a_bundle_with_weights_is_verified(shipped: Path) -> None:
    assert bundle.verify(shipped).ships_weights


def test_the_manifests_digest_names_the_bundle(shipped: Path) -> None:
    before = bundle.manifest_digest(shipped)
    text = (shipped / MANIFEST).read_text()
    (shipped / MANIFEST).write_text(text.replace("seed = 7", "seed = 8"))
    assert bundle.read(shipped).seed == 8
    assert bundle.manifest_digest(shipped) != before


@pytest.mark.parametrize("position", [0, 8191, 16383])
def test_one_altered_bit_of_the_weights_is_found(shipped: Path, position: int) -> None:
    content = bytearray((shipped / WEIGHTS).read_bytes())
    content[position] ^= 1
    (shipped / WEIGHTS).write_bytes(content)
    assert "is not the file that was shipped" in refused(shipped)


@pytest.mark.parametrize("size", [0, 1, 16383])
def test_a_truncated_file_is_found(shipped: Path, size: int) -> None:
    with (shipped / WEIGHTS).open("r+b") as file:
        file.truncate(size)
    assert "is not the file that was shipped" in refused(shipped)


def test_a_missing_file_is_found(shipped: Path) -> None:
    (shipped / WEIGHTS).unlink()
    assert refused(shipped).endswith(f"{WEIGHTS} cannot be read: No such file or directory")


def test_reading_alone_does_not_read_the_files(shipped: Path) -> None:
    (shipped / WEIGHTS).unlink()
    assert bundle.read(shipped).ships_weights


@pytest.mark.parametrize("reader", [bundle.read, bundle.verify])
def test_a_folder_without_a_manifest_is_no_bundle(tmp_path: Path, reader: Any) -> None:
    assert refused(tmp_path, reader) == f"{tmp_path} is not a bundle: it has no {MANIFEST}"
    assert "is not a bundle" in refused(tmp_path / "missing", reader)


def test_a_manifest_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).mkdir()
    assert "cannot be read" in refused(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "bundle format 2 is not known here: this agent reads format 1"),
        (
            {"model": ModelSpec("resnet20", (24,), 10)},
            "resnet20 takes (channels, height, width), for instance 3x32x32, not an input of 24",
        ),
        (
            {"model": ModelSpec("mlp", (3, 8, 8), 10)},
            "mlp takes (features,), for instance 24, not an input of 3×8×8",
        ),
        (
            {"model": ModelSpec("convnet1d", (24,), 10)},
            "convnet1d takes (channels, length), for instance 6x128, not an input of 24",
        ),
        (
            {"model": ModelSpec("vgg11", (3, 8, 4097), 10)},
            "an input of 3×8×4097 is too large: channels, height and width may be 4096",
        ),
        ({"model": ModelSpec("convnet1d", (4097, 8), 10)}, "an input of 4097×8 is too large: "),
        ({"labels": ("a", "b")}, "the bundle has 10 classes but 2 labels"),
        ({"labels": ("a",) * 10}, "the bundle's labels must all be different and none may be empty"),
        ({"labels": (*"abcdefghi", " ")}, "the bundle's labels must all be different and none may be empty"),
        ({"files": {"extra.bin": "0" * 64}}, "the bundle lists files that this agent does not know: extra.bin"),
        ({"files": {"../../etc/passwd": "0" * 64}}, "the bundle lists files that this agent does not know: ../../etc/passwd"),
        ({"files": {"/etc/passwd": "0" * 64}}, "the bundle lists files that this agent does not know: /etc/passwd"),
        ({"files": {f"./{WEIGHTS}": "0" * 64}}, f"the bundle lists files that this agent does not know: ./{WEIGHTS}"),
    ],
)
def test_a_manifest_that_contradicts_itself(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    contradictory = manifest(**changes)
    with pytest.raises(BundleError):
        bundle.write_manifest(tmp_path, contradictory)
    assert not (tmp_path / MANIFEST).exists(), "what is wrong is not written"
    (tmp_path / MANIFEST).write_bytes(msgspec.toml.encode(contradictory))
    assert refused(tmp_path).startswith(message)


@pytest.mark.parametrize(
    "model",
    [
        ModelSpec("mlp", (65536,), 10),
        ModelSpec("convnet1d", (4096, 65536), 10),
        ModelSpec("vgg11", (4096, 4096, 4096), 10),
        # Only who can build a model knows what it takes, and whether it is there.
        *(ModelSpec("somebody_elses", shape, 10) for shape in ((5,), (6, 128), (3, 8, 8))),
    ],
    ids=str,
)
def test_inputs_have_one_to_three_sides(tmp_path: Path, model: ModelSpec) -> None:
    bundle.write_manifest(tmp_path, manifest(model=model))
    assert bundle.read(tmp_path).model == model


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("seed = 7", "seed = -1"),
        ("seed = 7", "seed = 9007199254740992"),
        ("seed = 7", 'seed = "7"'),
        ("seed = 7", ""),
        ("seed = 7", "seed = 7\nscript = 'x'"),
        ("classes = 10", "classes = 1"),
        ("classes = 10", "classes = 100001"),
        ("classes = 10", "classes = 10\npath = 'x'"),
        ('"resnet20"', "5"),
        ("format = 1", "format = true"),
        ("input = [", "input = [1, "),
        ("input = [", "input = [0]\nold = ["),
        ("input = [", "input = []\nold = ["),
        ("input = [", "input = [65537]\nold = ["),
        ("[files]", '[files]\n"weights.safetensors" = "abc"'),
        ("[files]", '[files]\n"weights.safetensors" = "' + "G" * 64 + '"'),
    ],
)
def test_a_manifest_that_does_not_fit(tmp_path: Path, old: str, new: str) -> None:
    bundle.write_manifest(tmp_path, manifest())
    text = (tmp_path / MANIFEST).read_text()
    assert old in text
    (tmp_path / MANIFEST).write_text(text.replace(old, new, 1))
    assert "cannot be read" in refused(tmp_path)


NASTY = [b"", b"\xff", b"a=" + b"[" * 5000, b"a=" + b"1" * 5000, b"a." * 5000 + b"b=1", b"format = 1", b"\0" * 100]


@pytest.mark.parametrize("content", NASTY)
def test_a_nasty_manifest_is_a_bad_bundle(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MANIFEST).write_bytes(content)
    refused(tmp_path)


@given(st.binary() | st.text().map(str.encode))
def test_any_bytes_are_a_bad_bundle(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / MANIFEST).write_bytes(content)
    refused(folder)


@given(st.data())
def test_any_damage_to_a_manifest_is_found_or_harmless(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    content = bytearray(msgspec.toml.encode(manifest(labels=tuple("abcdefghij"))))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    folder = tmp_path_factory.getbasetemp()
    (folder / MANIFEST).write_bytes(content)
    try:
        bundle.check(bundle.verify(folder))
    except BundleError:
        pass
