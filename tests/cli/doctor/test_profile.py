from __future__ import annotations

from pathlib import Path

import pytest

from reconvene_agent.cli.doctor import profile
from reconvene_agent.core.profile import PROFILES_VARIABLE
from support.doctoring import case, codes, told
from support.planting import Plant

TREE = "sys/firmware/devicetree/base"


def test_a_board_that_is_known_by_its_device_tree(tmp_path: Path, boards: Path) -> None:
    made = case(tmp_path)
    made.root = boards / "raspberry-pi-5"
    assert told(profile.check(made), profile.GOOD).found == "raspberry-pi-5, since the device tree says 'raspberrypi,5-model-b'"
    assert made.profile is not None
    assert made.profile.name == "raspberry-pi-5"


def test_a_board_that_is_known_by_its_name(tmp_path: Path, plant: Plant) -> None:
    made = case(tmp_path)
    made.root = plant({"proc/sys/kernel/arch": "aarch64\n", f"{TREE}/model": "Raspberry Pi 5 Model B Rev 1.1\0"})
    found = told(profile.check(made), profile.GOOD).found
    assert found == "raspberry-pi-5, since the board calls itself 'Raspberry Pi 5 Model B Rev 1.1'"


def test_a_machine_of_which_only_the_processor_is_known(tmp_path: Path, boards: Path) -> None:
    made = case(tmp_path)
    made.root = boards / "generic-x86_64"
    assert told(profile.check(made), profile.GOOD).found.startswith("generic-x86_64, since the processor is x86_64 and no")


def test_a_board_that_no_profile_knows(tmp_path: Path, plant: Plant) -> None:
    made = case(tmp_path)
    made.root = plant(
        {"proc/sys/kernel/arch": "aarch64\n", f"{TREE}/model": "Banana Pi\0", f"{TREE}/compatible": "bananapi,m5\0amlogic,sm1\0"}
    )
    found = told(profile.check(made), profile.UNKNOWN_BOARD)
    assert found.found == "no profile knows the board Banana Pi: generic-aarch64 holds, with careful defaults"


def test_a_profile_that_the_configuration_names(tmp_path: Path, boards: Path) -> None:
    made = case(tmp_path, agent={"profile": "raspberry-pi-5"})
    made.root = boards / "raspberry-pi-5"
    assert "the configuration names it, and it fits" in told(profile.check(made), profile.GOOD).found
    made.root = boards / "jetson-orin-nano"
    found = list(profile.check(made))
    assert "names the profile raspberry-pi-5, but jetson-orin-nano is the one" in told(found, profile.MISFIT).found
    assert codes(found) == [profile.MISFIT.code]


def test_a_profile_that_is_not_there(tmp_path: Path) -> None:
    made = case(tmp_path, agent={"profile": "toaster"})
    assert "no profile is named 'toaster'; there are: " in told(profile.check(made), profile.UNUSABLE).found


def test_a_profile_that_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = tmp_path / "profiles/mine.toml"
    mine.parent.mkdir()
    mine.write_text("name = 7\n")
    monkeypatch.setenv(PROFILES_VARIABLE, str(mine.parent))
    made = case(tmp_path)
    assert f"{mine}: not a valid profile" in told(profile.check(made), profile.UNUSABLE).found
    assert made.profile is None
