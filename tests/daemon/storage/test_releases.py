from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reconvene_agent.core import release, shelf
from reconvene_agent.core.errors import ErrorCode
from reconvene_agent.core.release import ONNX
from reconvene_agent.core.shelf import Shelf, Switch
from reconvene_agent.daemon import effects as do
from reconvene_agent.daemon.storage.releases import Keeper
from support.disks import fill, tiny_disk
from support.shelves import publish, serving, tear


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


def test_nothing_is_no_problem(models: Path) -> None:
    found = Keeper(models).read()
    assert (found.release, found.problem, found.fell) == (None, "", None)


def test_a_broken_release_makes_room_for_the_one_before_and_is_told_once(models: Path) -> None:
    one, two = publish(models, 1), publish(models, 2)
    tear(models, two)
    keeper = Keeper(models)
    found = keeper.read()
    assert found.release is not None
    assert found.release.version == one == serving(models)
    assert found.fell is not None
    assert found.problem == (
        f"release {two} is broken ({models / two / ONNX} has 4 bytes, not the 7 that were deployed): "
        f"{one} serves in its place; specialize again, or promote another"
    )
    assert keeper.read().fell is None
    again = Keeper(models).read()
    assert (again.fell, again.problem) == (None, found.problem), "after a restart it is still a problem"
    publish(models, 3)
    assert keeper.read().problem == ""


def test_one_that_breaks_while_the_agent_runs_is_found(models: Path) -> None:
    one, two = publish(models, 1), publish(models, 2)
    keeper = Keeper(models)
    assert keeper.read().problem == ""
    tear(models, two)
    assert keeper.read().fell is not None
    assert serving(models) == one


@pytest.fixture
def proofs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    seen: list[Path] = []
    real = release.flaw

    def flaw(folder: Path) -> str:
        seen.append(folder)
        return real(folder)

    monkeypatch.setattr(shelf.release, "flaw", flaw)
    return seen  # type: ignore[return-value]


def test_what_was_proved_is_not_proved_again(models: Path, proofs: list[Path]) -> None:
    publish(models, 1)
    keeper = Keeper(models)
    for _ in range(3):
        assert keeper.read().problem == ""
    assert len(proofs) == 1


def test_where_all_is_broken_it_is_told_and_found_out_once_and_nothing_is_changed(models: Path, proofs: list[Path]) -> None:
    made = [publish(models, 1), publish(models, 2)]
    for version in made:
        tear(models, version)
    keeper = Keeper(models)
    for _ in range(3):
        found = keeper.read()
        assert found.release is None
        assert found.problem.startswith("no model can be trusted: no release is whole that could serve: ")
    assert len(proofs) == 2, "each of them once"
    assert serving(models) == made[1]
    publish(models, 3)
    assert keeper.read().problem == ""


def test_a_full_disk_is_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", "256k") as disk:
        publish(disk, 1)
        tear(disk, publish(disk, 2))
        keeper = Keeper(disk)
        ballast = fill(disk)
        assert "no space left on the disk" in keeper.read().problem
        ballast.unlink()
        assert keeper.read().fell is not None


def test_half_written_folders_go_when_the_agent_starts(models: Path) -> None:
    publish(models, 1)
    left = models / ".run.999999999.tmp"
    left.mkdir()
    Keeper(models).read()
    assert not left.exists()


def test_switches(models: Path) -> None:
    one, two = publish(models, 1), publish(models, 2)
    keeper = Keeper(models)
    for _ in range(2):
        done = keeper.switch(do.SwitchRelease("rollback/1", "rollback/1 17.0", 1))
        assert done.switch == Switch(two, one, "rollback/1 17.0")
    assert serving(models) == one
    refused = keeper.switch(do.SwitchRelease("rollback/2", "rollback/2 18.0", 1))
    assert (refused.switch, refused.code) == (None, ErrorCode.SCHEMA)
    assert "cannot go back 1 step" in refused.detail
    assert keeper.switch(do.SwitchRelease("promote/1", "promote/1 19.0", two)).switch is not None
    assert Shelf(models).serving == two


def test_a_switch_where_nothing_can_be_written_is_told(models: Path) -> None:
    models.write_bytes(b"a file")
    done = Keeper(models).switch(do.SwitchRelease("rollback/1", "x", 1))
    assert done.switch is None
    assert "holds no releases: it is no folder" in done.detail
    assert Keeper(models).read().release is None
