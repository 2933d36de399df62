from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconvene_agent.core import release
from reconvene_agent.core.errors import UsageError
from reconvene_agent.core.release import CURRENT, MANIFEST, ONNX
from support.values import NASTY_JSON
from support.values import release as a_release


def aside(models: Path, content: bytes, version: str) -> Path:
    """Prepare a release folder beside its final place."""
    folder = models / ".new"
    folder.mkdir(parents=True)
    (folder / ONNX).write_bytes(content)
    (folder / MANIFEST).write_bytes(msgspec.json.encode(a_release(version)))
    return folder


def publish(models: Path, number: int) -> str:
    version = release.version_for(models, f"{number:08x}" + "0" * 56)
    release.publish(aside(models, b"model %d" % number, version), models, version)
    return version


def serving(models: Path) -> str:
    return os.readlink(models / CURRENT)  # noqa: PTH115 - the text of the link itself


def test_a_published_release_serves(tmp_path: Path) -> None:
    version = publish(tmp_path, 7)
    assert version == "r0001-00000007"
    assert serving(tmp_path) == version
    assert release.current(tmp_path) == a_release(version)
    assert (tmp_path / CURRENT / ONNX).read_bytes() == b"model 7"
    assert not (tmp_path / ".new").exists()


def test_versions_are_numbered_in_order(tmp_path: Path) -> None:
    made = [publish(tmp_path, number) for number in (9, 3, 6)]
    assert made == ["r0001-00000009", "r0002-00000003", "r0003-00000006"]
    assert release.versions(tmp_path) == made


def test_the_same_file_keeps_its_version(tmp_path: Path) -> None:
    first, second = publish(tmp_path, 1), publish(tmp_path, 2)
    assert publish(tmp_path, 1) == first
    assert serving(tmp_path) == first
    assert release.versions(tmp_path) == [first, second]


def test_ten_thousand_releases_stay_in_order(tmp_path: Path) -> None:
    for version in ("r9998-0000000a", "r9999-0000000b"):
        release.publish(aside(tmp_path, b"x", version), tmp_path, version)
    assert publish(tmp_path, 12) == "r10000-0000000c"
    assert release.versions(tmp_path) == ["r9998-0000000a", "r9999-0000000b", "r10000-0000000c"]
    assert publish(tmp_path, 13) == "r10001-0000000d"
    assert release.sweep(tmp_path) == ["r9998-0000000a"]


def test_folders_of_the_user_are_no_versions(tmp_path: Path) -> None:
    version = publish(tmp_path, 1)
    for name in ("backup", "r0001-00000001.old", "rx-1", "r1", ".r0009-00000009"):
        (tmp_path / name).mkdir()
        (tmp_path / name / MANIFEST).write_bytes(b"{}")
    assert release.versions(tmp_path) == [version]
    assert publish(tmp_path, 2) == "r0002-00000002"
    release.sweep(tmp_path)
    assert (tmp_path / "backup").is_dir()


def test_no_models_folder_has_no_versions(tmp_path: Path) -> None:
    assert release.versions(tmp_path / "missing") == []
    assert release.version_for(tmp_path / "missing", "a" * 64) == "r0001-aaaaaaaa"


def test_a_crash_between_the_steps_is_mended_by_doing_them_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = publish(tmp_path, 1)
    version = release.version_for(tmp_path, f"{2:08x}")
    folder = aside(tmp_path, b"model 2", version)

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(release.atomic, "point_link", crash)
        with pytest.raises(KeyboardInterrupt):
            release.publish(folder, tmp_path, version)
    assert release.current(tmp_path) == a_release(old), "until the last step the old one serves"
    assert not folder.exists()
    release.publish(folder, tmp_path, version)
    assert release.current(tmp_path) == a_release(version)


def test_a_run_that_prepared_the_same_file_again_goes_on(tmp_path: Path) -> None:
    version = publish(tmp_path, 1)
    (tmp_path / CURRENT).unlink()
    assert publish(tmp_path, 1) == version
    assert serving(tmp_path) == version
    assert sorted(path.name for path in tmp_path.iterdir()) == [CURRENT, version]


def test_two_steps_back_are_kept(tmp_path: Path) -> None:
    made = [publish(tmp_path, number) for number in range(1, 6)]
    assert release.sweep(tmp_path) == made[:2]
    assert release.versions(tmp_path) == made[2:]
    assert release.sweep(tmp_path) == []


def test_newer_ones_than_the_current_are_kept(tmp_path: Path) -> None:
    made = [publish(tmp_path, number) for number in range(1, 6)]
    release.atomic.point_link(tmp_path / CURRENT, made[3])
    assert release.sweep(tmp_path) == made[:1]
    assert serving(tmp_path) == made[3]


@pytest.mark.parametrize("target", [None, "gone", "backup"])
def test_without_a_valid_current_nothing_is_removed(tmp_path: Path, target: str | None) -> None:
    made = [publish(tmp_path, number) for number in range(1, 6)]
    (tmp_path / CURRENT).unlink()
    if target is not None:
        (tmp_path / CURRENT).symlink_to(target)
    assert release.sweep(tmp_path) == []
    assert release.versions(tmp_path) == made


def test_a_release_is_found_by_itself_or_by_its_models_folder(tmp_path: Path) -> None:
    version = publish(tmp_path, 1)
    assert release.folder_of(tmp_path) == tmp_path / version
    assert release.folder_of(tmp_path / version) == tmp_path / version
    with pytest.raises(UsageError, match=r"holds no deployed model: neither release\.json nor current/release\.json"):
        release.folder_of(tmp_path / "elsewhere")


def test_no_release_is_none(tmp_path: Path) -> None:
    assert release.current(tmp_path) is None
    assert release.current(tmp_path / "missing") is None
    (tmp_path / CURRENT).symlink_to("gone")
    assert release.current(tmp_path) is None


@pytest.mark.parametrize("content", [*NASTY_JSON.values(), b"{}", b"[]", b'{"version":5}'])
def test_a_damaged_manifest_is_as_good_as_none(tmp_path: Path, content: bytes) -> None:
    version = publish(tmp_path, 1)
    (tmp_path / version / MANIFEST).write_bytes(content)
    assert release.current(tmp_path) is None
    with pytest.raises(UsageError, match=r"release\.json cannot be read: ."):
        release.read(tmp_path / version)


@given(st.data())
def test_no_damage_breaks_the_reader(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    content = bytearray(msgspec.json.encode(a_release()))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    folder = tmp_path_factory.getbasetemp()
    (folder / MANIFEST).write_bytes(content)
    try:
        release.read(folder)
    except UsageError:
        pass
