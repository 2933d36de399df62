from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reconvene_agent.core import config, overlay
from reconvene_agent.core.errors import ErrorCode
from reconvene_agent.daemon import effects as do
from reconvene_agent.daemon import events
from reconvene_agent.daemon.storage.settings import SettingsKeeper, come_up, give_up
from support.disks import fill, tiny_disk

BROKER = "mqtts://broker.example"


class Board:
    """A state folder, its owner's file, and the keeper of an agent that has come up with both."""

    def __init__(self, folder: Path, more: str = "") -> None:
        self.folder = folder
        self.file = folder / "config.toml"
        self.file.write_text(f'[agent]\nstate_dir = "{folder}"\n[broker]\nurl = "{BROKER}"\n{more}')
        self.keeper = SettingsKeeper(config.load(self.file), self.file)

    def update(self, changes: dict[str, Any]) -> events.SettingsUpdated:
        return self.keeper.update(do.UpdateSettings("config_update/1", "config_update/1 1.0", changes, 60.0))

    def refusal(self, changes: dict[str, Any]) -> str:
        """Return why changes are refused; the disk is as it was."""
        before = overlay.read(self.folder)
        told = self.update(changes)
        assert told.overlay is None
        assert overlay.read(self.folder) == before
        return f"{told.code.value}: {told.detail}"


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(tmp_path)


@pytest.mark.parametrize(
    ("changes", "needs_broker"),
    [({"training.epochs": 3}, False), ({"broker.url": "mqtts://other.example", "training.epochs": 3}, True)],
)
def test_changes_are_put_on_trial(board: Board, changes: dict[str, Any], needs_broker: bool) -> None:
    told = board.update(changes).overlay
    assert told == overlay.read(board.folder)
    assert told is not None
    assert told.trial is not None
    assert (told.trial.needs_broker, told.trial.seconds, told.trial.before) == (needs_broker, 60.0, {})
    assert told.trial.changed == sorted(changes)
    assert config.load(board.file).training.epochs == 3


def test_what_is_in_use_already_is_kept_without_a_trial(board: Board) -> None:
    told = board.update({"training.epochs": 10}).overlay
    assert told is not None
    assert told.trial is None
    assert told.last is not None
    assert (told.last.held, told.last.changed) == (True, [])
    assert overlay.read(board.folder).settings == {"training": {"epochs": 10}}


def test_every_mistake_is_told_in_one_line(board: Board) -> None:
    why = board.refusal({"training.epochs": 0, "budget.latency_ms": "fast", "broker.protocol": "6"})
    assert why.startswith("SCHEMA: ")
    assert "\n" not in why
    assert all(name in why for name in ("training.epochs", "budget.latency_ms", "broker.protocol"))


def test_the_whole_is_validated_not_each_part(board: Board) -> None:
    assert "drift.auto: needs a bundle and data" in board.refusal({"drift.auto": True})
    assert board.update({"drift.auto": True, "specialize.bundle": "b", "specialize.data": "d"}).overlay is not None


def test_the_agent_stays_within_reach_and_behind_tls(board: Board) -> None:
    assert "must not be empty" in board.refusal({"broker.url": ""})
    assert "cannot switch TLS off" in board.refusal({"broker.url": "mqtt://broker.example"})


def test_the_owners_file_is_read_anew(board: Board) -> None:
    board.file.write_text(board.file.read_text() + "[budget]\nlatency_ms = 0\n")
    assert "budget.latency_ms" in board.refusal({"training.epochs": 3})
    board.file.write_text("[")
    assert "cannot be read" in board.refusal({"training.epochs": 3})
    board.file.write_text('[agent]\nstate_dir = "/elsewhere"\n[broker]\nurl = "mqtts://broker.example"')
    assert "state_dir was changed" in board.refusal({"training.epochs": 3})


def test_a_trial_is_settled_once(board: Board) -> None:
    board.update({"training.epochs": 3})
    first = board.keeper.settle(do.SettleSettings(False, "why"))
    assert first.overlay is not None
    assert (first.overlay.settings, first.overlay.trial) == ({}, None)
    assert board.keeper.settle(do.SettleSettings(True)) == first


def test_a_full_disk_leaves_all_as_it_was(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "small", "256k") as folder:
        board = Board(folder)
        board.update({"training.epochs": 3})
        before = overlay.read(folder)
        fill(folder)
        told = board.update({"training.epochs": 4})
        assert (told.overlay, told.code) == (None, ErrorCode.NO_DISK)
        settled = board.keeper.settle(do.SettleSettings(True))
        assert settled.overlay is None
        assert "no space left" in settled.detail
        assert overlay.read(folder) == before


# --- coming up ------------------------------------------------------------------------------------------------------------------


def test_coming_up_counts_only_on_trial(board: Board) -> None:
    assert come_up(board.file).overlay == overlay.Overlay()
    board.update({"training.epochs": 3})
    adopted = come_up(board.file)
    assert adopted.overlay.trial is not None
    assert adopted.overlay.trial.starts == 1
    assert adopted.config.training.epochs == 3


def test_settings_that_do_not_fit_the_file_any_more_are_taken_back_from_trial(board: Board) -> None:
    board.update({"specialize.bundle": "b", "specialize.data": "d", "drift.auto": True})
    board.file.write_text(board.file.read_text().replace("[broker]", "[specialize]\nnew_data_share = 1.0\n[broker]"))
    overlay.write(
        board.folder,
        overlay.Overlay({"drift": {"auto": True}}, overlay.Trial("config_update/1 1.0", {}, False, 60.0, ["drift.auto"])),
    )
    with pytest.raises(config.UsageError):
        config.load(board.file)  # the owner's own file is wrong, and no fault of the trial
    board.file.write_text(board.file.read_text().replace("new_data_share = 1.0\n", ""))
    adopted = come_up(board.file)
    assert adopted.overlay.trial is None
    assert adopted.overlay.last is not None
    assert "drift.auto" in adopted.overlay.last.detail
    assert not adopted.config.drift.auto


def test_what_it_cannot_come_up_with_is_given_up(board: Board) -> None:
    assert not give_up(board.folder, "why")
    board.update({"training.epochs": 3})
    assert give_up(board.folder, "why")
    assert not give_up(board.folder, "why")
    last = overlay.read(board.folder).last
    assert last is not None
    assert last.detail == "the agent cannot come up with them: why"
