"""What training does to the board, read every few seconds: a few small files, no more."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from reconvene_agent.core.kernel.power import read_power
from reconvene_agent.daemon.probe.thermal import hottest_c


class Strain(Struct, frozen=True):
    """The hottest part in degrees Celsius, and whether the supply is too weak now; None where the board cannot tell."""

    temperature_c: float | None = None
    under_voltage: bool | None = None


def read_strain(root: Path) -> Strain:
    """Return how the board below ``root`` fares; it never fails."""
    power = read_power(root)
    return Strain(hottest_c(root), None if power is None else power.under_voltage)
