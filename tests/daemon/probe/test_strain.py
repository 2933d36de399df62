from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from reconvene_agent.core.device import Strain
from reconvene_agent.daemon.probe.strain import read_strain

PI = "sys/devices/platform/soc/soc:firmware/get_throttled"
ZONE = "sys/class/thermal/thermal_zone0"


@pytest.mark.parametrize(("flags", "weak"), [("0", False), ("50000", False), ("1", True), ("50005", True)])
def test_heat_and_under_voltage_of_a_raspberry_pi(plant: Callable[..., Path], flags: str, weak: bool) -> None:
    root = plant({PI: f"{flags}\n", f"{ZONE}/type": "cpu-thermal\n", f"{ZONE}/temp": "81234\n"})
    assert read_strain(root) == Strain(81.234, weak)


@pytest.mark.parametrize(("soc", "counter"), [("tegra234", "oc1_event_cnt"), ("tegra194", "oc2_event_cnt")])
def test_weak_moments_that_a_jetson_counts(plant: Callable[..., Path], soc: str, counter: str) -> None:
    monitor = "sys/class/hwmon/hwmon3"
    counts = {f"{monitor}/{name}": "0\n" for name in ("oc1_event_cnt", "oc2_event_cnt", "oc3_event_cnt")}
    tree = {"sys/firmware/devicetree/base/compatible": f"nvidia,board\0nvidia,{soc}\0", f"{monitor}/name": "soctherm_oc\n"}
    assert read_strain(plant({**tree, **counts, f"{monitor}/{counter}": "7\n"})) == Strain(None, None, 7)


def test_a_board_that_tells_nothing(plant: Callable[..., Path]) -> None:
    assert read_strain(plant({})) == Strain(None, None)
