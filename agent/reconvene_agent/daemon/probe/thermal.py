"""How hot the board is: the hottest of its thermal zones, else of its processor's own sensors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from reconvene_agent.core.kernel.files import children, read_line, read_number

# Zones that measure nothing: on Jetson boards this one says 100 degrees whatever happens.
_FIXED_ZONES = ("PMIC-Die",)

# AMD's processors have no thermal zone.
_PROCESSOR_SENSORS = ("k10temp", "zenpower", "coretemp", "cpu_thermal")

_COLDEST, _HOTTEST = -40.0, 125.0


def hottest_c(root: Path) -> float | None:
    """Return the highest temperature of the board in degrees Celsius, or None when no sensor tells a believable one.

    Zones of parts that are switched off (a Jetson's accelerators) answer with an error, or with -256 degrees.
    """
    zones = list(_zones(root))
    return max(zones or _processor_sensors(root), default=None)


def _zones(root: Path) -> Iterator[float]:
    for zone in children(root / "sys/class/thermal", "thermal_zone"):
        if read_line(zone / "type") not in _FIXED_ZONES:
            yield from _believable(zone / "temp")


def _processor_sensors(root: Path) -> Iterator[float]:
    for monitor in children(root / "sys/class/hwmon", "hwmon"):
        if read_line(monitor / "name") in _PROCESSOR_SENSORS:
            for sensor in children(monitor, "temp"):
                if sensor.name.endswith("_input"):
                    yield from _believable(sensor)


def _believable(file: Path) -> Iterator[float]:
    millidegrees = read_number(file)
    if millidegrees is not None and _COLDEST <= millidegrees / 1000 <= _HOTTEST:
        yield millidegrees / 1000
