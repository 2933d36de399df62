from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconvene_agent.core.device import Power
from reconvene_agent.core.kernel.power import read_power

FLAGS = "sys/devices/platform/soc/soc:firmware/get_throttled"


def told(flags: str) -> Power:
    """Return the flags, in their order in Power: ``+`` on, ``-`` off, ``?`` not told."""
    return Power(*({"+": True, "-": False, "?": None}[flag] for flag in flags))


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("0", told("----")),
        ("0x0", told("----")),
        ("1", told("+-+-")),
        ("2", told("-+-+")),
        ("4", told("-+-+")),
        ("8", told("-+-+")),
        ("10000", told("--+-")),
        ("20000", told("---+")),
        ("40000", told("---+")),
        ("80000", told("---+")),
        ("50000", told("--++")),
        ("0x50005", told("++++")),
        ("80008", told("-+-+")),
        ("10", told("----")),
    ],
)
def test_flags_of_the_firmware(plant: Callable[..., Path], flags: str, expected: Power) -> None:
    assert read_power(plant({FLAGS: f"{flags}\n"})) == expected


def test_flags_of_the_firmware_below_another_bus(plant: Callable[..., Path]) -> None:
    node = "sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled"
    assert read_power(plant({node: "50005\n"})) == told("++++")


@pytest.mark.parametrize("content", ["", "none\n", "-1\n", b"\xff", "f" * 40])
def test_garbled_flags_are_not_told(plant: Callable[..., Path], content: str | bytes) -> None:
    assert read_power(plant({FLAGS: content})) is None


@pytest.mark.parametrize(("alarm", "expected"), [("0", told("-???")), ("1", told("+?+?"))])
def test_the_voltage_monitor_stands_in_for_the_flags(plant: Callable[..., Path], alarm: str, expected: Power) -> None:
    monitor = "sys/class/hwmon/hwmon2"
    files = {f"{monitor}/name": "rpi_volt\n", f"{monitor}/in0_lcrit_alarm": f"{alarm}\n"}
    assert read_power(plant(files)) == expected
    assert read_power(plant({**files, FLAGS: "40000\n"})) == told("---+")


def test_alarms_of_other_monitors_are_not_ours(plant: Callable[..., Path]) -> None:
    files = {"sys/class/hwmon/hwmon0/name": "ltc4283\n", "sys/class/hwmon/hwmon0/in0_lcrit_alarm": "1\n"}
    assert read_power(plant(files)) is None


def jetson(chip: str, **counters: int) -> dict[str, str | bytes]:
    files: dict[str, str | bytes] = {f"sys/class/hwmon/hwmon3/{name}": f"{count}\n" for name, count in counters.items()}
    files["sys/class/hwmon/hwmon3/name"] = "soctherm_oc\n"
    files["sys/firmware/devicetree/base/compatible"] = b"nvidia,some-board\0" + chip.encode() + b"\0"
    return files


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (jetson("nvidia,tegra234", oc1_event_cnt=0, oc2_event_cnt=0, oc3_event_cnt=0), told("??--")),
        (jetson("nvidia,tegra234", oc1_event_cnt=2, oc2_event_cnt=0), told("??++")),
        (jetson("nvidia,tegra234", oc1_event_cnt=0, oc3_event_cnt=7), told("??-+")),
        (jetson("nvidia,tegra234", oc1_event_cnt=0, oc3_event_cnt=7, oc3_throt_en=0), told("??--")),
        (jetson("nvidia,tegra234", oc1_event_cnt=0, oc3_event_cnt=7, oc3_throt_en=1), told("??-+")),
        (jetson("nvidia,tegra194", oc1_irq_cnt=1, oc2_irq_cnt=0), told("??-+")),
        (jetson("nvidia,tegra194", oc1_irq_cnt=0, oc2_irq_cnt=1), told("??++")),
        (jetson("nvidia,tegra264", oc1_event_cnt=1), told("???+")),
    ],
)
def test_over_current_counters_of_a_jetson(plant: Callable[..., Path], files: dict[str, str | bytes], expected: Power) -> None:
    assert read_power(plant(files)) == expected


@pytest.mark.parametrize(
    ("kind", "state", "expected"),
    [
        ("gpu-throttle-alert", 0, told("?-??")),
        ("gpu-throttle-alert", 1, told("?+?+")),
        ("pwm-fan", 3, None),
        ("hot-surface-alert", 1, None),
    ],
)
def test_throttle_alerts_of_a_jetson(plant: Callable[..., Path], kind: str, state: int, expected: Power | None) -> None:
    device = "sys/class/thermal/cooling_device7"
    assert read_power(plant({f"{device}/type": f"{kind}\n", f"{device}/cur_state": f"{state}\n"})) == expected


def test_counters_and_alerts_of_a_jetson_together(plant: Callable[..., Path]) -> None:
    alert = {"sys/class/thermal/cooling_device7/type": "x-throttle-alert\n", "sys/class/thermal/cooling_device7/cur_state": "0\n"}
    assert read_power(plant({**jetson("nvidia,tegra234", oc1_event_cnt=0), **alert})) == told("?---")
    assert read_power(plant({**jetson("nvidia,tegra234", oc1_event_cnt=3), **alert})) == told("?-++")


def test_a_board_without_any_of_it_is_none(plant: Callable[..., Path]) -> None:
    assert read_power(plant({})) is None


@settings(derandomize=True, deadline=None, database=None)
@given(content=st.binary(max_size=64))
def test_no_bytes_break_it(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    root = tmp_path_factory.mktemp("root")
    for name in (FLAGS, "sys/class/hwmon/hwmon0/in0_lcrit_alarm", "sys/class/thermal/cooling_device0/cur_state"):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_bytes(content)
    (root / "sys/class/hwmon/hwmon0/name").write_text("rpi_volt\n")
    (root / "sys/class/thermal/cooling_device0/type").write_text("cpu-throttle-alert\n")
    found = read_power(root)
    assert found is None or not found.throttled or found.throttled_since_boot
    assert found is None or not found.under_voltage or found.under_voltage_since_boot
