from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.worker.data import images
from reconvene_agent.worker.data.dataset import Dataset
from reconvene_agent.worker.data.load import load as load_data
from reconvene_agent.worker.data.skipped import NAMED_EXAMPLES
from support.pictures import class_folders, encoded, noise, png_header

SPEC = ModelSpec("vgg11", (3, 8, 8), 2)
NAMES = ("cat", "dog")


def quiet(_fraction: float, _note: str) -> None: ...


def load(folder: Path, labels: tuple[str, ...] = (), spec: ModelSpec = SPEC, validation: float = 0.3) -> Dataset:
    return load_data(folder, spec, labels, validation, quiet)


def sides(data: Dataset) -> tuple[set[bytes], set[bytes]]:
    train, held = ({image.tobytes() for image in part.inputs} for part in (data.train, data.validation))
    return train, held


def classes(data: Dataset) -> dict[bytes, int]:
    parts = (data.train, data.validation)
    return {image.tobytes(): int(c) for part in parts for image, c in zip(part.inputs, part.classes, strict=True)}


def pixels(paths: Iterable[Path]) -> set[bytes]:
    return {np.asarray(Image.open(path)).transpose(2, 0, 1).tobytes() for path in paths}


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "animals", NAMES, each=20)


def test_every_image_is_read_once_with_the_class_of_its_folder(animals: Path) -> None:
    data = load(animals)
    found = classes(data)
    for number, name in enumerate(NAMES):
        assert {image for image, each in found.items() if each == number} == pixels((animals / name).iterdir())
    assert len(data.train) + len(data.validation) == 40
    assert data.labels == NAMES
    assert data.skipped.count == 0


def test_parts_that_are_given_are_taken_as_they_are(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", NAMES, each=5)
    class_folders(tmp_path / "val", NAMES, each=3, seed=50)
    assert sides(load(tmp_path)) == (pixels(tmp_path.glob("train/*/*")), pixels(tmp_path.glob("val/*/*")))


def test_the_split_depends_on_neither_names_nor_order(animals: Path, tmp_path: Path) -> None:
    known = load(animals)
    other = tmp_path / "other"
    for index, path in enumerate(sorted(animals.glob("*/*"), reverse=True)):
        (other / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, other / path.parent.name / f"IMG_{index:05}.PNG")
    moved = load(other)
    assert sides(moved) == sides(known)
    assert classes(moved) == classes(known)
    assert sides(load(animals, validation=0.4))[1] > sides(known)[1]


def test_the_same_folder_gives_the_same_data_in_the_same_order(animals: Path) -> None:
    assert load(animals).fingerprint() == load(animals).fingerprint()


def test_of_copies_one_is_kept(tmp_path: Path) -> None:
    class_folders(tmp_path, NAMES, each=15)
    known = load(tmp_path)
    for path in sorted(tmp_path.glob("*/*")):
        shutil.copy(path, path.with_name(f"{path.stem}-copy.png"))
    data = load(tmp_path)
    assert sides(data) == sides(known)
    assert len(data.train) + len(data.validation) == 30
    assert data.skipped.counts == {"duplicate": 30}
    assert data.skipped.named()[0] == "cat/000.png: the same as cat/000-copy.png"


def test_a_copy_in_both_parts_stays_in_the_held_out_one(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", NAMES, each=5)
    class_folders(tmp_path / "val", NAMES, each=3, seed=50)
    shutil.copy(tmp_path / "val/cat/001.png", tmp_path / "train/cat/leak.png")
    data = load(tmp_path)
    assert (len(data.train), len(data.validation)) == (10, 6)
    assert data.skipped.named() == ["train/cat/leak.png: the same as val/cat/001.png"]


def test_an_image_in_two_classes_is_believed_in_neither(animals: Path) -> None:
    shutil.copy(animals / "cat/003.png", animals / "dog/cat.png")
    data = load(animals)
    assert len(data.train) + len(data.validation) == 39
    assert data.skipped.counts == {"contradiction": 2}
    assert set(data.skipped.named()) == {
        "cat/003.png: the same as dog/cat.png, in another class",
        "dog/cat.png: the same as cat/003.png, in another class",
    }


def test_labels_decide_the_numbers_and_a_class_without_images_keeps_its_own(tmp_path: Path) -> None:
    class_folders(tmp_path, ("dog", "ant"), each=10)
    data = load(tmp_path, labels=("dog", "bee", "ant"), spec=ModelSpec("vgg11", (3, 8, 8), 3))
    assert data.labels == ("dog", "bee", "ant")
    assert set(classes(data).values()) == {0, 2}
    assert {image for image, number in classes(data).items() if number == 2} == pixels((tmp_path / "ant").iterdir())


def test_a_class_that_only_one_part_has_keeps_its_number_in_both(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", ("ant", "dog"), each=4)
    class_folders(tmp_path / "val", ("dog",), each=4, seed=7)
    data = load(tmp_path)
    assert set(data.train.classes.tolist()) == {0, 1}
    assert set(data.validation.classes.tolist()) == {1}


def test_a_folder_that_is_no_label_is_skipped_and_told(animals: Path) -> None:
    data = load(animals, labels=("cat", "cow"))
    assert set(classes(data).values()) == {0}
    assert data.skipped.counts == {"unknown_class": 20}
    assert data.skipped.named()[0] == "dog/000.png: class dog is not among the bundle's labels"
    assert "classes with no images: the model cannot tell them: cow" in data.remarks


def test_folders_of_which_none_is_a_label_are_refused_with_the_labels(animals: Path) -> None:
    with pytest.raises(
        AgentError, match=r"no class of the data \(cat, dog\) is among the bundle's labels \(cow, pig\)"
    ) as caught:
        load(animals, labels=("cow", "pig"))
    assert caught.value.code is ErrorCode.BAD_DATA


@pytest.mark.parametrize("count", [3, 1])
def test_without_labels_there_must_be_as_many_folders_as_classes(animals: Path, count: int) -> None:
    with pytest.raises(AgentError, match=rf"the data's classes are 2 \(cat, dog\), the bundle's {count},") as caught:
        load(animals, spec=ModelSpec("vgg11", (3, 8, 8), count))
    assert caught.value.code is ErrorCode.BAD_DATA


def test_broken_images_are_skipped_counted_and_named(animals: Path) -> None:
    (animals / "cat/empty.png").touch()
    (animals / "cat/text.jpg").write_text("hello")
    (animals / "dog/cut.png").write_bytes(encoded(noise(1))[:-40])
    (animals / "dog/bomb.png").write_bytes(png_header(30_000, 30_000))
    (animals / "dog/really-a.jpeg").write_bytes(encoded(noise(3002)))  # a PNG by another name is an image
    (animals / "dog/large.jpg").touch()
    os.truncate(animals / "dog/large.jpg", images.MAX_FILE_BYTES + 1)
    (animals / "dog/x.webp").touch()
    data = load(animals)
    assert len(data.train) + len(data.validation) == 41
    assert data.skipped.counts == {"broken": 3, "too_large": 2, "format": 1}
    assert data.skipped.sentence() == "skipped 6: 3 broken, 2 too large, 1 of another format"
    named = dict(example.split(": ", 1) for example in data.skipped.named())
    assert named.pop("dog/large.jpg") == "the file has more than 64 MiB"
    assert named.pop("dog/x.webp") == "only JPEG and PNG are read"
    assert set(named) == {"cat/empty.png", "cat/text.jpg", "dog/cut.png", "dog/bomb.png"}
    assert named["cat/text.jpg"] == "it is neither a JPEG nor a PNG image"


def test_of_many_broken_images_some_are_named_and_all_counted(animals: Path) -> None:
    for index in range(12):
        (animals / f"cat/broken{index}.png").touch()
    skipped = load(animals).skipped
    assert (skipped.count, len(skipped.named())) == (12, NAMED_EXAMPLES)


@pytest.mark.parametrize(("broken", "accepted"), [(20, True), (21, False)])
def test_when_most_images_are_broken_something_else_is(tmp_path: Path, broken: int, accepted: bool) -> None:
    class_folders(tmp_path, NAMES, each=10)
    for index in range(broken):
        (tmp_path / f"cat/broken{index:02}.png").touch()
    if accepted:
        assert load(tmp_path).skipped.count == broken
        return
    with pytest.raises(AgentError, match=r"21 of 41 images in .* cannot be used, such as cat/broken00\.png: ") as caught:
        load(tmp_path)
    assert caught.value.code is ErrorCode.BAD_DATA


def test_what_is_hidden_or_no_picture_by_its_name_is_passed_over(animals: Path) -> None:
    known = load(animals).fingerprint()
    (animals / "cat/.hidden.png").touch()
    (animals / "cat/notes.txt").touch()
    (animals / "cat/image").write_bytes(encoded(noise(3)))
    (animals / "cat/folder.png").mkdir()
    (animals / ".git").mkdir()
    (animals / ".git/a.png").write_bytes(encoded(noise(4)))
    (animals / "loose.png").write_bytes(encoded(noise(5)))
    os.mkfifo(animals / "cat/pipe.png")
    data = load(animals)
    assert data.fingerprint() == known
    assert data.skipped.count == 0


def test_links_are_followed_as_long_as_they_stay_inside(animals: Path, tmp_path: Path) -> None:
    known = load(animals)
    linked = tmp_path / "linked"
    linked.symlink_to(animals)
    assert load(linked).fingerprint() == known.fingerprint()
    elsewhere = class_folders(tmp_path / "elsewhere", ("cow",), each=3, seed=90)
    (animals / "cow").symlink_to(elsewhere / "cow")
    (animals / "cat/out.png").symlink_to(elsewhere / "cow/000.png")
    (animals / "cat/dangling.png").symlink_to(animals / "cat/nowhere.png")
    (animals / "cat/loop.png").symlink_to(animals / "cat/loop.png")
    (animals / "loop").symlink_to(animals / "loop")
    (animals / "again").symlink_to(animals / "cat")
    (animals / "cat/another.png").symlink_to(animals / "cat/000.png")
    data = load(animals, labels=NAMES)
    assert data.skipped.counts == {"outside": 3, "unreadable": 5, "unknown_class": 21, "duplicate": 1}
    assert set(data.skipped.examples["outside"]) == {
        f"{name}: a link that leads out of the data folder" for name in ("cow", "cat/out.png", "again/out.png")
    }
    assert sides(data) == sides(known)


@pytest.mark.parametrize("layout", [(), ("cat",), ("train/cat/deep", "val/cat")])
def test_no_images_are_no_data_and_the_way_out_is_told(tmp_path: Path, layout: tuple[str, ...]) -> None:
    for folder in layout:
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(AgentError) as caught:
        load(tmp_path, labels=("cat", "dog"))
    assert caught.value.code is ErrorCode.NO_DATA
    assert f"put them as {tmp_path}/<class>/<name>.jpg or .png" in caught.value.message


def test_one_image_is_not_enough(tmp_path: Path) -> None:
    class_folders(tmp_path, NAMES, each=1)
    with pytest.raises(AgentError, match="at least 2 are needed") as caught:
        load(tmp_path, validation=0.999)
    assert caught.value.code is ErrorCode.NO_DATA


def test_file_names_that_are_not_utf_8_are_read_and_can_be_told(animals: Path) -> None:
    folder = os.fsencode(animals / "cat")
    Path(os.fsdecode(folder + b"/caf\xe9.png")).write_bytes(encoded(noise(3006)))
    Path(os.fsdecode(folder + b"/\xff\xfe.png")).touch()
    data = load(animals)
    assert len(data.train) + len(data.validation) == 41
    assert data.skipped.count == 1
    assert json.dumps(data.skipped.named(), ensure_ascii=False).encode()


def test_a_class_folder_whose_name_is_not_utf_8_is_refused(animals: Path) -> None:
    Path(os.fsdecode(os.fsencode(animals) + b"/\xe9ne")).mkdir()
    with pytest.raises(AgentError, match="is not UTF-8: rename it") as caught:
        load(animals, spec=ModelSpec("vgg11", (3, 8, 8), 3))
    assert caught.value.code is ErrorCode.BAD_DATA
    assert caught.value.message.encode()


def test_a_folder_that_may_not_be_read_is_no_data(animals: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def refusing(path: Path) -> object:
        if Path(path).name == "dog":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(AgentError, match=r"dog: Permission denied") as caught:
        load(animals)
    assert caught.value.code is ErrorCode.NO_DATA


def test_a_model_of_two_channels_cannot_be_fed_with_image_files(animals: Path) -> None:
    with pytest.raises(AgentError, match=r"cannot fill 2 channels: bring the data as \.npz") as caught:
        load(animals, spec=ModelSpec("vgg11", (2, 8, 8), 2))
    assert caught.value.code is ErrorCode.BAD_DATA


@pytest.mark.parametrize(
    ("architecture", "shape", "said"), [("convnet1d", (6, 128), "windows of 6×128"), ("mlp", (24,), "rows of 24")]
)
def test_a_model_that_takes_no_images_is_not_fed_with_image_files(
    animals: Path, architecture: str, shape: tuple[int, ...], said: str
) -> None:
    with pytest.raises(AgentError) as caught:
        load(animals, spec=ModelSpec(architecture, shape, 2))
    assert caught.value.message.startswith(f"{architecture} takes {said}, and {animals} holds no CSV files of them: put them as ")
    assert caught.value.code is ErrorCode.NO_DATA


def test_progress_is_told_every_fifty_images_and_may_stop_the_reading(tmp_path: Path) -> None:
    class_folders(tmp_path, NAMES, each=60)
    heard: list[float] = []

    def hear(fraction: float, note: str) -> None:
        if note.startswith("reading"):
            heard.append(round(fraction, 3))

    load_data(tmp_path, SPEC, (), 0.3, hear)
    assert heard == [0.0, 0.417, 0.833]

    def stop(fraction: float, _note: str) -> None:
        if fraction > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_data(tmp_path, SPEC, (), 0.3, stop)
