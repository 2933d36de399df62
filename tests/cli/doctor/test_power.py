from __future__ import annotations

from pathlib import Path

import pytest

from reconvene_agent.cli.doctor import power
from reconvene_agent.cli.doctor.case import Case
from reconvene_agent.cli.doctor.findings import Kind
from reconvene_agent.core import profile
from support.doctoring import codes, told
from support.planting import Plant

FLAGS = "sys/devices/platform/soc/soc:firmware/get_throttled"
ZONE = "sys/class/thermal/thermal_zone0"


def pi(plant: Plant, flags: str, degrees: float = 50.0) -> Case:
    files = {FLAGS: f"{flags}\n", f"{ZONE}/type": "cpu-thermal\n", f"{ZONE}/temp": f"{degrees * 1000:.0f}\n"}
    return Case(None, root=plant(files), profile=profile.load_all()["raspberry-pi-4b"])


def test_a_board_that_fares_well(plant: Plant) -> None:
    assert told(power.check(pi(plant, "0")), power.GOOD).found == "the power supply suffices; it is at 50 °C"


def test_a_machine_that_tells_nothing(plant: Plant) -> None:
    found = told(power.check(Case(None, root=plant({"x": ""}))), power.GOOD).found
    assert found == "the board does not tell how its supply fares; nor how hot it is"


@pytest.mark.parametrize(
    ("flags", "kinds"),
    [
        ("1", [power.WEAK]),
        ("10001", [power.WEAK]),
        ("10000", [power.WAS_WEAK]),
        ("2", [power.HELD_DOWN]),
        ("5", [power.WEAK, power.HELD_DOWN]),
    ],
)
def test_a_supply_that_is_too_weak_and_clocks_that_are_held_down(plant: Plant, flags: str, kinds: list[Kind]) -> None:
    found = list(power.check(pi(plant, flags)))
    assert codes(found) == [kind.code for kind in kinds]
    for kind in kinds:
        told(found, kind)


def test_a_board_that_is_hot(plant: Plant) -> None:
    made = pi(plant, "0", 95)
    assert made.profile is not None
    found = told(power.check(made), power.HOT)
    assert found.found == f"the board is at 95 °C: training pauses above {made.profile.thermal.hot_c:.0f} °C"


@pytest.mark.parametrize("name", ["raspberry-pi-5", "jetson-orin-nano", "generic-x86_64"])
def test_boards_as_they_are(boards: Path, name: str) -> None:
    made = Case(None, root=boards / name, profile=profile.load_all()[name])
    assert len(list(power.check(made))) == 1
