from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconvene_agent.daemon.probe.thermal import hottest_c


def zone(number: int, temp: str, kind: str = "cpu-thermal") -> dict[str, str]:
    folder = f"sys/class/thermal/thermal_zone{number}"
    return {f"{folder}/type": f"{kind}\n", f"{folder}/temp": f"{temp}\n"}


def test_the_hottest_zone_counts(plant: Callable[..., Path]) -> None:
    assert hottest_c(plant({**zone(0, "41500"), **zone(1, "63250"), **zone(10, "50000")})) == 63.25


def test_no_zone_is_none(plant: Callable[..., Path]) -> None:
    assert hottest_c(plant({})) is None


@pytest.mark.parametrize("absurd", ["-256000", "127000", "255000", "999999999999999999999", "hot", "", "nan", "4.5e4"])
def test_absurd_values_are_ignored(plant: Callable[..., Path], absurd: str) -> None:
    assert hottest_c(plant(zone(0, absurd))) is None
    assert hottest_c(plant(zone(1, "45000"))) == 45.0


@pytest.mark.parametrize(("temp", "degrees"), [("0", 0.0), ("-20000", -20.0), ("105000", 105.0)])
def test_extreme_but_possible_values_count(plant: Callable[..., Path], temp: str, degrees: float) -> None:
    assert hottest_c(plant(zone(0, temp))) == degrees


def test_the_zone_that_always_says_100_is_ignored(plant: Callable[..., Path]) -> None:
    assert hottest_c(plant({**zone(0, "34000", "CPU-therm"), **zone(4, "100000", "PMIC-Die")})) == 34.0


def test_a_zone_without_a_name_counts(plant: Callable[..., Path]) -> None:
    assert hottest_c(plant({"sys/class/thermal/thermal_zone0/temp": "40000\n"})) == 40.0


def test_zones_that_answer_with_an_error_are_ignored(plant: Callable[..., Path]) -> None:
    root = plant({**zone(0, "47000"), "sys/class/thermal/thermal_zone1/temp/folder": "", **zone(2, "1", "cv0-thermal")})
    off = root / "sys/class/thermal/thermal_zone2/temp"
    off.unlink()
    os.mkfifo(off)
    writer = os.open(off, os.O_RDWR)  # as a Jetson's zone that is switched off: Resource temporarily unavailable
    try:
        assert hottest_c(root) == 47.0
    finally:
        os.close(writer)


@pytest.mark.parametrize(("name", "degrees"), [("k10temp", 61.5), ("coretemp", 61.5), ("nvme", None), ("iwlwifi_1", None)])
def test_processors_own_sensors_stand_in_for_zones(plant: Callable[..., Path], name: str, degrees: float | None) -> None:
    folder = "sys/class/hwmon/hwmon3"
    files = {f"{folder}/name": f"{name}\n", f"{folder}/temp1_input": "61500\n", f"{folder}/temp1_crit": "99000\n"}
    assert hottest_c(plant(files)) == degrees


def test_zones_come_before_other_sensors(plant: Callable[..., Path]) -> None:
    files = {"sys/class/hwmon/hwmon0/name": "coretemp\n", "sys/class/hwmon/hwmon0/temp1_input": "80000\n"}
    assert hottest_c(plant({**files, **zone(0, "0")})) == 0.0


@settings(derandomize=True, deadline=None, database=None)
@given(contents=st.lists(st.binary(max_size=64), max_size=3))
def test_no_bytes_break_it(tmp_path_factory: pytest.TempPathFactory, contents: list[bytes]) -> None:
    root = tmp_path_factory.mktemp("root")
    for number, content in enumerate(contents):
        folder = root / f"sys/class/thermal/thermal_zone{number}"
        folder.mkdir(parents=True)
        (folder / "type").write_bytes(content)
        (folder / "temp").write_bytes(content)
    degrees = hottest_c(root)
    assert degrees is None or -40.0 <= degrees <= 125.0
