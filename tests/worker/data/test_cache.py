from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.worker.data import images
from reconvene_agent.worker.data.cache import Cache
from reconvene_agent.worker.data.dataset import Dataset
from reconvene_agent.worker.data.load import load
from support.disks import tiny_disk
from support.pictures import class_folders, encoded, noise

SPEC = ModelSpec("vgg11", (3, 8, 8), 2)
NAMES = ("cat", "dog")


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "animals", NAMES, each=20)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows with every image that is decoded."""
    sizes: list[int] = []
    decode = images.decode

    def counted(content: bytes, shape: tuple[int, ...]) -> images.Pixels:
        sizes.append(len(content))
        return decode(content, shape)

    monkeypatch.setattr(images, "decode", counted)
    return sizes


def read(folder: Path, work: Path, most_mb: float | None = None, validation: float = 0.3) -> Dataset:
    return load(folder, SPEC, (), validation, lambda *_: None, Cache(work / "data", most_mb))


def test_what_was_decoded_is_not_decoded_again(animals: Path, tmp_path: Path, decoded: list[int]) -> None:
    (animals / "cat/broken.png").touch()
    first = read(animals, tmp_path / "work")
    assert len(decoded) == 41
    again = read(animals, tmp_path / "work")
    assert len(decoded) == 41
    assert again.fingerprint() == first.fingerprint()
    assert (again.labels, again.mean, again.std, again.skipped) == (first.labels, first.mean, first.std, first.skipped)
    assert (first.anew, again.anew) == (True, False)


def test_inputs_from_a_cache_are_those_of_a_reading_without_one(animals: Path, tmp_path: Path) -> None:
    plain = load(animals, SPEC, (), 0.3, lambda *_: None)
    assert read(animals, tmp_path / "work").fingerprint() == plain.fingerprint()


def overwrite(folder: Path) -> None:
    (folder / "cat/007.png").write_bytes(encoded(noise(999)))


def touch(folder: Path) -> None:
    os.utime(folder / "dog/007.png", (1, 1))


def remove(folder: Path) -> None:
    (folder / "dog/007.png").unlink()


def move(folder: Path) -> None:
    (folder / "dog/007.png").rename(folder / "cat/dog.png")


@pytest.mark.parametrize("change", [overwrite, touch, remove, move])
def test_other_files_are_decoded_anew(animals: Path, tmp_path: Path, decoded: list[int], change: Callable[[Path], None]) -> None:
    read(animals, tmp_path / "work")
    change(animals)
    decoded.clear()
    assert read(animals, tmp_path / "work").anew
    assert len(decoded) in (39, 40)


def test_another_question_is_answered_anew(animals: Path, tmp_path: Path, decoded: list[int]) -> None:
    read(animals, tmp_path / "work")
    assert read(animals, tmp_path / "work", validation=0.4).anew
    assert len(decoded) == 80
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["data"]


def test_a_run_that_goes_on_keeps_its_inputs_while_data_grow(animals: Path, tmp_path: Path, decoded: list[int]) -> None:
    before = read(animals, tmp_path / "work")
    (animals / "cat/new.png").write_bytes(encoded(noise(999)))
    again = read(animals, tmp_path / "work")
    assert again.fingerprint() == before.fingerprint()
    assert before.census == again.census == msgspec.structs.replace(again.census, files=40)
    assert len(decoded) == 40
    grown = read(animals, tmp_path / "another")
    assert len(grown.train) + len(grown.validation) == 41


@pytest.mark.parametrize("gone", ["moved", "emptied"])
def test_a_folder_that_is_gone_does_no_harm_to_what_was_decoded(animals: Path, tmp_path: Path, gone: str) -> None:
    before = read(animals, tmp_path / "work")
    shutil.rmtree(animals)
    if gone == "emptied":
        (animals / "cat").mkdir(parents=True)
        (animals / "dog").mkdir()
    again = read(animals, tmp_path / "work")
    assert again.fingerprint() == before.fingerprint()
    (remark,) = again.remarks
    assert remark.endswith("; this run goes on with the inputs that it has decoded before")
    with pytest.raises(AgentError) as caught:
        read(animals, tmp_path / "another")
    assert caught.value.code is ErrorCode.NO_DATA


def test_a_folder_that_vanishes_while_it_is_read_is_no_data(animals: Path, tmp_path: Path) -> None:
    def vanish(fraction: float, note: str) -> None:
        if note.startswith("reading") and animals.exists():
            shutil.rmtree(animals)

    with pytest.raises(AgentError, match="vanished while it was read: bring it back and try again") as caught:
        load(animals, SPEC, (), 0.3, vanish, Cache(tmp_path / "work/data"))
    assert caught.value.code is ErrorCode.NO_DATA
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("name", ["train", "held_out", "train.classes", "marks", "facts.json"])
@pytest.mark.parametrize("damage", ["cut short", "gone"])
def test_a_damaged_cache_is_made_anew(animals: Path, tmp_path: Path, name: str, damage: str) -> None:
    before = read(animals, tmp_path / "work").fingerprint()
    path = tmp_path / "work/data" / name
    path.unlink() if damage == "gone" else os.truncate(path, path.stat().st_size - 1)
    again = read(animals, tmp_path / "work")
    assert again.anew
    assert again.fingerprint() == before


def test_a_decoding_that_was_killed_leaves_nothing_that_could_be_taken_for_data(animals: Path, tmp_path: Path) -> None:
    def kill(fraction: float, note: str) -> None:
        if fraction >= 0.5:
            raise KeyboardInterrupt

    for index in range(60):
        (animals / f"cat/{index}.png").write_bytes(encoded(noise(5000 + index)))
    partial = tmp_path / "work/data.partial"
    partial.mkdir(parents=True)
    (partial / "train").write_bytes(b"left by SIGKILL")
    with pytest.raises(KeyboardInterrupt):
        load(animals, SPEC, (), 0.3, kill, Cache(tmp_path / "work/data"))
    assert not (tmp_path / "work").exists()
    assert len(read(animals, tmp_path / "work").train) > 40


def test_what_needs_more_than_it_may_take_is_refused_before_it_is_decoded(
    animals: Path, tmp_path: Path, decoded: list[int]
) -> None:
    with pytest.raises(AgentError, match=r"need 0\.007324 MiB .* may take 0\.005: raise specialize\.cache_mb") as caught:
        read(animals, tmp_path / "work", most_mb=0.005)
    assert caught.value.code is ErrorCode.NO_DISK
    assert decoded == []
    assert not (tmp_path / "work").exists()


def test_a_disk_that_is_too_small_is_no_disk_and_nothing_stays_on_it(animals: Path, tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", "64k") as disk:
        (disk / "ballast").write_bytes(b"\0" * 60_000)
        with pytest.raises(AgentError, match=r"and may take .*: free some of the disk that holds") as caught:
            read(animals, disk / "work")
        assert caught.value.code is ErrorCode.NO_DISK
        assert [path.name for path in disk.iterdir()] == ["ballast"]
        (disk / "ballast").unlink()
        assert len(read(animals, disk / "work").train) > 20


def test_a_disk_that_fills_up_while_inputs_are_decoded_is_no_disk(animals: Path, tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", "64k") as disk:

        def fill_up(_fraction: float, note: str) -> None:
            if note.startswith("reading") and not (disk / "ballast").exists():
                (disk / "ballast").write_bytes(b"\0" * (os.statvfs(disk).f_bavail * 4096))

        with pytest.raises(AgentError, match="no space left on the disk while decoding inputs to") as caught:
            load(animals, SPEC, (), 0.3, fill_up, Cache(disk / "work/data"))
        assert caught.value.code is ErrorCode.NO_DISK
        assert [path.name for path in disk.iterdir()] == ["ballast"]


def test_inputs_are_read_memory_mapped_and_few_of_their_pages_stay_resident(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (20_000, 3, 32, 32), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", x=x, y=np.arange(len(x)) % 2)
    data = load(
        tmp_path / "data.npz", ModelSpec("vgg11", (3, 32, 32), 2), (), 0.1, lambda *_: None, Cache(tmp_path / "work/data")
    )
    data.fingerprint()
    order = np.random.default_rng(1).permutation(len(data.train))
    resident = [mapped_mb(tmp_path / "work/data/train")]
    for start in range(0, len(order), 64):
        data.train.take(order[start : start + 64])
        resident.append(mapped_mb(tmp_path / "work/data/train"))
    assert data.train.inputs.nbytes > 50 * 2**20
    assert 0 < max(resident) < 24


def mapped_mb(path: Path) -> float:
    """Return how much of a mapped file is resident in this process."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    for line in lines:
        if line.endswith(str(path)):
            return next(int(each.split()[1]) / 1024 for each in lines if each.startswith("Rss:"))
    raise AssertionError(f"{path} is not mapped")
