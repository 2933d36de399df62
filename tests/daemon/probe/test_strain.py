from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from reconvene_agent.daemon.probe.strain import Strain, read_strain

PI = "sys/devices/platform/soc/soc:firmware/get_throttled"
ZONE = "sys/class/thermal/thermal_zone0"


@pytest.mark.parametrize(("flags", "weak"), [("0", False), ("50000", False), ("1", True), ("50005", True)])
def test_heat_and_under_voltage_of_a_raspberry_pi(plant: Callable[..., Path], flags: str, weak: bool) -> None:
    root = plant({PI: f"{flags}\n", f"{ZONE}/type": "cpu-thermal\n", f"{ZONE}/temp": "81234\n"})
    assert read_strain(root) == Strain(81.234, weak)


def test_a_board_that_tells_nothing(plant: Callable[..., Path]) -> None:
    assert read_strain(plant({})) == Strain(None, None)
