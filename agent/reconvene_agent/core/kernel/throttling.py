"""Whether something holds the processors' clocks down: by the firmware, the thermal framework, or the clocks themselves."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from reconvene_agent.core.kernel.files import children, read_line, read_number
from reconvene_agent.core.kernel.power import read_power

_CPUS = "sys/devices/system/cpu"
# The cooling devices that slow processors down, as the thermal framework calls them.
_COOLING = ("cpufreq-cpu", "thermal-cpufreq-", "cpu-idle", "Processor")
_COUNTERS = ("core_throttle_count", "package_throttle_count")


def held_down(root: Path) -> bool | None:
    """Return whether the clocks are held down right now; None on a board that cannot tell."""
    power = read_power(root)
    told = [state > 0 for state in _cooling_states(root)]
    if power is not None and power.throttled is not None:
        told.append(power.throttled)
    return any(told) if told else None


def _cooling_states(root: Path) -> list[int]:
    devices = children(root / "sys/class/thermal", "cooling_device")
    slowing = [device for device in devices if (read_line(device / "type") or "").startswith(_COOLING)]
    return [state for device in slowing if (state := read_number(device / "cur_state")) is not None]


def throttled_count(root: Path) -> int:
    """Return how often the processors have throttled themselves since boot; 0 where nobody counts."""
    files = [cpu / "thermal_throttle" / name for cpu in children(root / _CPUS, "cpu") for name in _COUNTERS]
    return sum(max(0, read_number(file) or 0) for file in files)


def clock_share(root: Path, cpus: Collection[int]) -> float | None:
    """Return the clock of the fastest of the processors as a share of what it may run at all the time; None if not told.

    Where clocks above the nominal one come and go (turbo), the nominal one counts, if it is told.
    """
    boosts = read_number(root / _CPUS / "cpufreq/boost") == 1 or read_number(root / _CPUS / "intel_pstate/no_turbo") == 0
    shares = []
    for cpu in cpus:
        folder = root / _CPUS / f"cpu{cpu}" / "cpufreq"
        nominal = read_number(folder / "base_frequency") or (None if boosts else read_number(folder / "scaling_max_freq"))
        now = read_number(folder / "scaling_cur_freq")
        if nominal and now and nominal > 0:
            shares.append(min(1.0, now / nominal))
    return max(shares, default=None)
