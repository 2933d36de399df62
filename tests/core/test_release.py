from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconvene_agent.core import release
from reconvene_agent.core.errors import UsageError
from reconvene_agent.core.release import CURRENT, MANIFEST, ONNX
from support.shelves import publish, serving, tear
from support.values import NASTY_JSON
from support.values import release as a_release


def test_a_published_release_serves(tmp_path: Path) -> None:
    version = publish(tmp_path, 7)
    assert version.startswith("r0001-")
    assert serving(tmp_path) == version
    current = release.current(tmp_path)
    assert current is not None
    assert current.version == version
    assert (tmp_path / CURRENT / ONNX).read_bytes() == b"model 7"
    assert not (tmp_path / ".new").exists()


def test_versions_are_numbered_in_order(tmp_path: Path) -> None:
    made = [publish(tmp_path, number) for number in (9, 3, 6)]
    assert [version[:6] for version in made] == ["r0001-", "r0002-", "r0003-"]
    assert release.versions(tmp_path) == made


def test_the_same_file_keeps_its_version(tmp_path: Path) -> None:
    first, second = publish(tmp_path, 1), publish(tmp_path, 2)
    assert publish(tmp_path, 1) == first
    assert serving(tmp_path) == first
    assert release.versions(tmp_path) == [first, second]


def test_folders_of_the_user_are_no_versions(tmp_path: Path) -> None:
    version = publish(tmp_path, 1)
    for name in ("backup", "r0001-00000001.old", "rx-1", "r1", ".r0009-00000009"):
        (tmp_path / name).mkdir()
        (tmp_path / name / MANIFEST).write_bytes(b"{}")
    assert release.versions(tmp_path) == [version]
    assert publish(tmp_path, 2).startswith("r0002-")
    assert (tmp_path / "backup").is_dir(), "and none that is swept"


def test_no_models_folder_has_no_versions(tmp_path: Path) -> None:
    assert release.versions(tmp_path / "missing") == []
    assert release.version_for(tmp_path / "missing", "a" * 64) == "r0001-aaaaaaaa"


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


def test_a_whole_release_has_no_flaw(tmp_path: Path) -> None:
    assert release.flaw(tmp_path / publish(tmp_path, 1)) == ""


def test_a_torn_file_is_told_by_its_size(tmp_path: Path) -> None:
    version = publish(tmp_path, 1)
    tear(tmp_path, version)
    assert release.flaw(tmp_path / version) == f"{tmp_path / version / ONNX} has 4 bytes, not the 7 that were deployed"


def test_a_file_of_the_right_size_is_told_by_its_digest(tmp_path: Path) -> None:
    version = publish(tmp_path, 1)
    (tmp_path / version / ONNX).write_bytes(b"model 2")
    assert release.flaw(tmp_path / version).endswith("model.onnx is not the file that was deployed")


@pytest.mark.parametrize("name", [ONNX, MANIFEST])
def test_a_missing_file_is_a_flaw(tmp_path: Path, name: str) -> None:
    version = publish(tmp_path, 1)
    (tmp_path / version / name).unlink()
    assert f"{version}/{name} cannot be read: " in release.flaw(tmp_path / version)


def test_a_manifest_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    document = msgspec.to_builtins(a_release())
    del document["precision"], document["refused"]
    (tmp_path / MANIFEST).write_bytes(msgspec.json.encode(document))
    assert release.read(tmp_path) == a_release()
