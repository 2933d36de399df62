from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from reconvene_agent.core import config, overlay
from reconvene_agent.core.overlay import MAX_STARTS, Outcome, Overlay, Trial
from support.values import NASTY_JSON

BEFORE = {"training": {"epochs": 3}}
ON_TRIAL = Overlay({"training": {"epochs": 5}}, Trial("config_update/1 1.0", BEFORE, True, 60.0, ["training.epochs"]))


@pytest.fixture
def owners(tmp_path: Path) -> Path:
    """Return an owner's file that names ``tmp_path`` as the state folder."""
    path = tmp_path / "config.toml"
    path.write_text(f'[agent]\nstate_dir = "{tmp_path}"\n[training]\nepochs = 7\nbatch = 16\n')
    return path


def test_it_reads_what_it_wrote(tmp_path: Path) -> None:
    assert overlay.read(tmp_path) == Overlay()
    overlay.write(tmp_path, ON_TRIAL)
    assert overlay.read(tmp_path) == ON_TRIAL


@pytest.mark.parametrize("raw", [*NASTY_JSON.values(), b"", b'{"settings":{"training":{"epochs":'])
def test_a_damaged_file_is_no_file(tmp_path: Path, raw: bytes, owners: Path) -> None:
    (tmp_path / overlay.FILE).write_bytes(raw)
    assert overlay.read(tmp_path) == Overlay()
    assert config.load(owners).training.epochs == 7


def test_a_trial_ends_one_way_or_the_other() -> None:
    assert ON_TRIAL.settled(True) == Overlay(ON_TRIAL.settings, None, Outcome("config_update/1 1.0", True, ["training.epochs"]))
    back = ON_TRIAL.settled(False, "why")
    assert back == Overlay(BEFORE, None, Outcome("config_update/1 1.0", False, ["training.epochs"], "why"))
    assert back.settled(True) == back, "once"


def test_starts_on_trial_are_counted_and_have_an_end(tmp_path: Path) -> None:
    overlay.write(tmp_path, ON_TRIAL)
    for start in range(1, MAX_STARTS + 1):
        found = overlay.note_start(tmp_path)
        assert found.trial is not None
        assert found.trial.starts == start
    given_up = overlay.note_start(tmp_path)
    assert given_up == overlay.read(tmp_path)
    assert (given_up.settings, given_up.trial) == (BEFORE, None)
    assert given_up.last is not None
    assert not given_up.last.held
    assert overlay.note_start(tmp_path) == given_up


def test_commands_go_over_the_owners_file_setting_by_setting(tmp_path: Path, owners: Path) -> None:
    overlay.write(tmp_path, Overlay({"training": {"epochs": 5}, "budget": {"latency_ms": 20}}))
    found = config.load(owners)
    assert (found.training.epochs, found.training.batch, found.budget.latency_ms) == (5, 16, 20)


def test_what_does_not_fit_the_owners_file_any_more_is_left_out_and_named(tmp_path: Path, owners: Path) -> None:
    overlay.write(tmp_path, Overlay({"training": {"epochs": "many"}, "budget": {"latency_ms": 20}}))
    found = config.adopt(owners)
    assert found.config.training.epochs == 7
    assert "training.epochs: Expected `int`, got `str`" in found.problem


def test_nothing_but_what_is_listed_is_taken_from_the_disk(tmp_path: Path, owners: Path) -> None:
    (tmp_path / overlay.FILE).write_bytes(msgspec.json.encode({"settings": {"worker": {"python": "/tmp/x", "attempts": 9}}}))
    found = config.load(owners)
    assert (found.worker.python, found.worker.attempts) == ("", 9)
