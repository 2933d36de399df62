"""What training does to the board, read every few seconds: a few small files, no more."""

from __future__ import annotations

from pathlib import Path

from reconvene_agent.core.device import Strain
from reconvene_agent.core.kernel.power import read_power, under_voltage_events
from reconvene_agent.daemon.probe.thermal import hottest_c


def read_strain(root: Path) -> Strain:
    """Return how the board below ``root`` fares; it never fails."""
    power = read_power(root)
    now = None if power is None else power.under_voltage
    return Strain(hottest_c(root), now, under_voltage_events(root) if now is None else None)
