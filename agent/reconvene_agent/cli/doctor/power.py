"""Supply and heat: what makes training pause, and what holds the clocks down."""

from __future__ import annotations

from collections.abc import Iterator

from reconvene_agent.cli.doctor.case import Case
from reconvene_agent.cli.doctor.findings import Finding, ok, warning
from reconvene_agent.core.kernel.power import read_power
from reconvene_agent.daemon.probe.thermal import hottest_c

GOOD = ok("power.good", "{supply}; {heat}")
WEAK = warning(
    "power.weak",
    "the power supply is too weak now: training pauses",
    "use the supply that is made for this board, a short cable, and fewer devices at its USB ports",
)
WAS_WEAK = warning(
    "power.was-weak",
    "the power supply suffices now, but has been too weak since the board was started",
    "use the supply that is made for this board, a short cable, and fewer devices at its USB ports",
)
HELD_DOWN = warning(
    "power.held-down",
    "something holds the clocks down now, so that models are slower than planned",
    "see whether the board is hot (reconvene-agent probe), or its power mode is a small one (nvpmodel -q on a Jetson)",
)
HOT = warning(
    "power.hot",
    "the board is at {degrees} °C: training pauses above {hot} °C",
    "cool it: a heat sink, a fan, more air around it; or train when it is cooler (worker.windows in {file})",
)


def check(case: Case) -> Iterator[Finding]:
    power, degrees = read_power(case.root), hottest_c(case.root)
    trouble = []
    if power is not None:
        if power.under_voltage:
            trouble.append(WEAK())
        elif power.under_voltage_since_boot:
            trouble.append(WAS_WEAK())
        if power.throttled:
            trouble.append(HELD_DOWN())
    if degrees is not None and case.profile is not None and degrees > case.profile.thermal.hot_c:
        trouble.append(HOT(degrees=f"{degrees:.0f}", hot=f"{case.profile.thermal.hot_c:.0f}", file=case.settings))
    supply = "the board does not tell how its supply fares" if power is None else "the power supply suffices"
    heat = "nor how hot it is" if degrees is None else f"it is at {degrees:.0f} °C"
    yield from trouble or [GOOD(supply=supply, heat=heat)]
