"""The board at hand, for commands that work without the daemon."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import pytest

from reconvene_agent.cli.board import find_board
from reconvene_agent.core.errors import UsageError
from reconvene_agent.core.requests import runtime
from support.commandline import configured


@pytest.fixture(autouse=True)
def without_a_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECONVENE_AGENT_CONFIG", os.devnull)


def given(**values: object) -> argparse.Namespace:
    return argparse.Namespace(**{"config": None, "profile": None, "threads": None, **values})


def test_the_board_is_this_one_with_the_storage_that_matters(tmp_path: Path) -> None:
    board = find_board(given(), tmp_path)
    assert board.device.architecture == os.uname().machine
    assert board.device.storage.path == str(tmp_path)
    assert board.profile.match.architecture == board.device.architecture


def test_the_profile_named_goes_over_the_configured_one_and_that_over_the_one_that_fits(tmp_path: Path) -> None:
    config = configured(tmp_path, agent={"profile": "jetson-nano"})
    assert find_board(given(config=config), tmp_path).profile.name == "jetson-nano"
    assert find_board(given(config=config, profile="raspberry-pi-5"), tmp_path).profile.name == "raspberry-pi-5"
    assert find_board(given(), tmp_path).profile.name not in {"jetson-nano", "raspberry-pi-5"}


def test_threads_go_over_the_profiles() -> None:
    board = find_board(given(threads=1), Path("/"))
    compute = runtime(board.profile, board.device)
    assert (compute.inference_threads, compute.training_threads) == (1, 1)


@pytest.mark.parametrize("threads", [0, -1, 100_000])
def test_threads_must_be_those_of_the_board(threads: int) -> None:
    with pytest.raises(UsageError, match=r"--threads must lie between 1 and \d+, the cores of this board"):
        find_board(given(threads=threads), Path("/"))


def test_a_profile_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="no profile is named 'abacus'"):
        find_board(given(profile="abacus"), Path("/"))
