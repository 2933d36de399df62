"""What training does to the board, read every few seconds: a few small files, no more."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from reconvene_agent.core.kernel.power import read_power, under_voltage_events
from reconvene_agent.daemon.probe.thermal import hottest_c


class Strain(Struct, frozen=True):
    """The hottest part in degrees Celsius, and whether the supply is too weak now; None where the board cannot tell.

    ``under_voltage_events`` is how often it has been since boot, where a board counts but does not tell it as it happens.
    """

    temperature_c: float | None = None
    under_voltage: bool | None = None
    under_voltage_events: int | None = None


def read_strain(root: Path) -> Strain:
    """Return how the board below ``root`` fares; it never fails."""
    power = read_power(root)
    now = None if power is None else power.under_voltage
    return Strain(hottest_c(root), now, under_voltage_events(root) if now is None else None)
