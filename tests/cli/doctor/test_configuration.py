from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reconvene_agent.cli.doctor import configuration
from reconvene_agent.cli.doctor.account import acting_as
from reconvene_agent.cli.doctor.case import Case
from reconvene_agent.core import overlay
from reconvene_agent.core.config import Config
from reconvene_agent.core.overlay import Overlay, Trial
from support.commandline import configured
from support.doctoring import NOBODY, codes, told


def test_a_file_without_mistakes(tmp_path: Path) -> None:
    case = Case(configured(tmp_path, agent={"device_id": "mine"}))
    assert told(configuration.check(case), configuration.GOOD).found == f"{case.file} has no mistakes"
    assert case.config is not None
    assert case.config.agent.device_id == "mine"


def test_without_a_file_the_defaults_hold() -> None:
    case = Case(None)
    told(configuration.check(case), configuration.NONE)
    assert case.config == Config()


def test_every_mistake_is_a_finding(tmp_path: Path) -> None:
    file = configured(tmp_path, agent={"devise_id": "x", "log_level": "loud"}, broker={"url": "http://h"}, wurker={})
    case = Case(file)
    found = list(configuration.check(case))
    assert codes(found) == ["config.mistake"] * 4
    assert any("agent.devise_id: there is no such setting; is it device_id?" in each.found for each in found)
    assert all(each.found.startswith(f"a mistake: {file}: ") and each.advice.startswith(f"correct {file}") for each in found)
    assert case.config is None


@pytest.mark.parametrize("content", [b"= no toml", b"\xff", None])
def test_a_file_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "config.toml"
    if content is not None:
        file.write_bytes(content)
    assert "cannot be read" in told(configuration.check(Case(file)), configuration.MISTAKE).found


@pytest.mark.usefixtures("as_root")
def test_a_file_that_is_for_others(tmp_path: Path) -> None:
    file = configured(tmp_path)
    file.chmod(0o600)
    with acting_as(NOBODY):
        found = told(list(configuration.check(Case(file))), configuration.FORBIDDEN)
    assert found.found == f"you may not read {file}"


@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_a_file_that_others_may_write(tmp_path: Path, mode: int) -> None:
    file = configured(tmp_path)
    file.chmod(mode)
    found = told(configuration.check(Case(file)), configuration.OPEN)
    assert f"(mode {mode:04o})" in found.found
    file.chmod(mode & ~0o022)  # what it says to type
    told(configuration.check(Case(file)), configuration.GOOD)


IDLE: dict[str, tuple[dict[str, dict[str, Any]], str]] = {
    "a broker's user without a broker": ({"broker": {"username": "me"}}, "broker.username does nothing: there is no broker.url"),
    "two limits for one": (
        {"budget": {"memory_mb": 10.0, "memory_share": 0.5}},
        "budget.memory_share does nothing: budget.memory_mb wins over it",
    ),
    "widths beside an imposed one": (
        {"method": {"width_multiplier": 0.5}, "specialize": {"width_multipliers": [1.0, 0.5]}},
        "specialize.width_multipliers does nothing: method.width_multiplier imposes one",
    ),
    "a limit on what is never done": ({"drift": {"timeout_s": 5.0}}, "drift.timeout_s does nothing: the deployed model is never"),
    "patience beyond the end": (
        {"training": {"epochs": 3, "patience": 3}},
        "training.patience does nothing: training is over by then",
    ),
}


@pytest.mark.parametrize("name", IDLE)
def test_a_setting_that_does_nothing(tmp_path: Path, name: str) -> None:
    sections, text = IDLE[name]
    assert told(configuration.check(Case(configured(tmp_path, **sections))), configuration.IDLE).found.startswith(text)


@pytest.mark.parametrize(
    "sections",
    [
        {"drift": {"timeout_s": 5.0, "check_interval_s": 60.0}},
        {"drift": {"timeout_s": 120.0}},
        {"broker": {"url": "mqtt://h", "username": "me"}},
        {"budget": {"memory_share": 0.5}},
        {"training": {"epochs": 3, "patience": 2}},
    ],
)
def test_a_setting_that_does_something_or_says_the_default(tmp_path: Path, sections: dict[str, Any]) -> None:
    told(configuration.check(Case(configured(tmp_path, **sections))), configuration.GOOD)


def changed(folder: Path, settings: dict[str, Any], trial: Trial | None = None) -> Case:
    """Return a case in which commands have changed settings."""
    (folder / "state").mkdir()
    overlay.write(folder / "state", Overlay(settings, trial))
    return Case(configured(folder, agent={"state_dir": str(folder / "state")}))


def test_settings_that_commands_have_changed(tmp_path: Path) -> None:
    case = changed(tmp_path, {"training": {"epochs": 7}, "drift": {"auto": False}})
    found = list(configuration.check(case))
    assert told(found, configuration.UPDATED).found.endswith("over the file: drift.auto, training.epochs")
    assert case.config is not None
    assert case.config.training.epochs == 7, "what is looked at is what holds"
    assert codes(found) == [configuration.GOOD.code, configuration.UPDATED.code]


def test_settings_on_trial(tmp_path: Path) -> None:
    trial = Trial("config_update/1", {}, True, 120.0, ["broker.url"])
    found = told(configuration.check(changed(tmp_path, {"broker": {"url": "mqtt://h"}}, trial)), configuration.ON_TRIAL)
    assert found.found.endswith("are on trial: broker.url")
    assert "within 120 s" in found.advice


def test_changes_that_fit_no_more(tmp_path: Path) -> None:
    case = changed(tmp_path, {"drift": {"auto": True}})
    found = list(configuration.check(case))
    assert "drift.auto: needs a bundle and data" in told(found, configuration.UNFIT).found
    assert f"sudo rm {tmp_path}/state/settings.json" in found[-1].advice
    assert case.config is not None
    assert not case.config.drift.auto


@pytest.mark.parametrize(
    ("url", "plain"),
    [
        ("mqtt://broker.example.org", True),
        ("mqtt://192.0.2.1", True),
        ("mqtts://broker.example.org", False),
        ("mqtt://localhost", False),
        ("mqtt://127.0.0.1", False),
        ("mqtt://[::1]", False),
    ],
)
def test_a_password_that_others_can_read_on_its_way(tmp_path: Path, url: str, plain: bool) -> None:
    password = tmp_path / "password"
    password.write_text("sesame\n")
    file = configured(tmp_path, broker={"url": url, "username": "me", "password_file": str(password)})
    found = list(configuration.check(Case(file)))
    assert codes(found) == [(configuration.PLAIN_PASSWORD if plain else configuration.GOOD).code]
    if plain:
        told(found, configuration.PLAIN_PASSWORD)
