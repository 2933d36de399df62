from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from reconvene_agent.core.kernel.throttling import clock_share, held_down, throttled_count

COOLING = "sys/class/thermal/cooling_device"
FIRMWARE = "sys/devices/platform/soc/soc:firmware/get_throttled"
CPUS = "sys/devices/system/cpu"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({f"{COOLING}0/type": "cpufreq-cpu0\n", f"{COOLING}0/cur_state": "0\n"}, False),
        ({f"{COOLING}0/type": "cpufreq-cpu0\n", f"{COOLING}0/cur_state": "3\n"}, True),
        ({f"{COOLING}0/type": "thermal-cpufreq-0\n", f"{COOLING}0/cur_state": "1\n"}, True),
        ({f"{COOLING}0/type": "Processor\n", f"{COOLING}0/cur_state": "2\n"}, True),
        ({f"{COOLING}0/type": "pwm-fan\n", f"{COOLING}0/cur_state": "4\n"}, None),
        ({f"{COOLING}0/type": "cpufreq-cpu0\n", f"{COOLING}0/cur_state": "what\n"}, None),
        ({f"{COOLING}0/type": "cpu-throttle-alert\n", f"{COOLING}0/cur_state": "1\n"}, True),
        ({FIRMWARE: "0\n"}, False),
        ({FIRMWARE: "4\n"}, True),
        ({FIRMWARE: "40000\n"}, False),
        ({FIRMWARE: "0\n", f"{COOLING}0/type": "cpufreq-cpu0\n", f"{COOLING}0/cur_state": "3\n"}, True),
    ],
)
def test_what_holds_the_clocks_down(files: Mapping[str, str], expected: bool | None, plant: Callable[..., Path]) -> None:
    assert held_down(plant(files)) is expected


def test_how_often_processors_throttled_themselves(plant: Callable[..., Path]) -> None:
    root = plant({f"{CPUS}/cpu{n}/thermal_throttle/core_throttle_count": f"{n}\n" for n in range(3)})
    plant({f"{CPUS}/cpu0/thermal_throttle/package_throttle_count": "10\n"})
    plant({f"{CPUS}/cpu1/thermal_throttle/package_throttle_count": "no\n"})
    assert throttled_count(root) == 13
    assert throttled_count(root / "nowhere") == 0


def clocks(**khz: int) -> dict[str, str]:
    return {f"{CPUS}/cpu0/cpufreq/{name}": f"{value}\n" for name, value in khz.items()}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        (clocks(scaling_cur_freq=1500000, scaling_max_freq=1500000), 1.0),
        (clocks(scaling_cur_freq=600000, scaling_max_freq=1500000), 0.4),
        (clocks(scaling_cur_freq=600000), None),
        (clocks(scaling_cur_freq=600000, scaling_max_freq=0), None),
        (clocks(scaling_cur_freq=2000000, scaling_max_freq=4000000, base_frequency=2000000), 1.0),
        (clocks(scaling_cur_freq=1000000, scaling_max_freq=4000000, base_frequency=2000000), 0.5),
        ({**clocks(scaling_cur_freq=2000000, scaling_max_freq=4000000), f"{CPUS}/cpufreq/boost": "1\n"}, None),
        ({**clocks(scaling_cur_freq=2000000, scaling_max_freq=4000000), f"{CPUS}/cpufreq/boost": "0\n"}, 0.5),
        ({**clocks(scaling_cur_freq=2000000, scaling_max_freq=4000000), f"{CPUS}/intel_pstate/no_turbo": "0\n"}, None),
    ],
)
def test_the_clock_as_a_share_of_what_it_may_run_at(
    files: Mapping[str, str], expected: float | None, plant: Callable[..., Path]
) -> None:
    assert clock_share(plant(files), [0, 1]) == expected


def test_of_several_processors_the_fastest_counts(plant: Callable[..., Path]) -> None:
    root = plant(clocks(scaling_cur_freq=600000, scaling_max_freq=1500000))
    plant({f"{CPUS}/cpu1/cpufreq/scaling_cur_freq": "1500000", f"{CPUS}/cpu1/cpufreq/scaling_max_freq": "1500000"})
    assert clock_share(root, [0, 1]) == 1.0
    assert clock_share(root, [0]) == 0.4


def test_the_boards_kept_here_that_are_held_down(boards: Path) -> None:
    held = sorted(board.name for board in boards.iterdir() if held_down(board))
    assert held == ["jetson-agx-orin", "raspberry-pi-3b-plus", "raspberry-pi-4b"]
    assert {throttled_count(board) for board in boards.iterdir()} == {0}
