"""Whether the power supply suffices and whether something holds the clocks down, on boards that tell.

Raspberry Pi: the firmware's flags, else the alarm of its voltage monitor. Jetson: the throttle alerts of the thermal
framework, and the counters of the over-current controller (JetPack 5 and later; interrupt counters before).
"""

from __future__ import annotations

from pathlib import Path

from reconvene_agent.core.device import Power
from reconvene_agent.core.kernel.devicetree import compatible
from reconvene_agent.core.kernel.files import children, read_line, read_number

# The firmware's flags: bit 0 under-voltage, 1 frequency capped, 2 throttled, 3 soft temperature limit; 16 bits up, the same
# at any time since boot.
_UNDER_VOLTAGE = 0x1
_HELD_DOWN = 0x2 | 0x4 | 0x8
_SINCE_BOOT = 16

# Which over-current alarm stands for a supply voltage that is too low.
_UNDER_VOLTAGE_ALARMS = {"nvidia,tegra234": 1, "nvidia,tegra194": 2}
_OVER_CURRENT_ALARMS = range(1, 7)


def read_power(root: Path) -> Power | None:
    """Return the flags of supply and clocks, or None on a board that has none.

    ``throttled`` covers every reason to hold the clocks down. A Raspberry Pi whose kernel polls the firmware has the flags
    since boot cleared at each poll, so they may tell the last seconds alone; its voltage monitor tells nothing of the clocks
    and nothing of the past. A Jetson does not tell under-voltage now: see ``under_voltage_events``.
    """
    return _firmware(root) or _voltage_monitor(root) or _jetson(root)


def _firmware(root: Path) -> Power | None:
    for soc in children(root / "sys/devices/platform", "soc"):
        for node in children(soc, "soc"):
            if node.name.endswith(":firmware"):
                flags = read_number(node / "get_throttled", 16)
                if flags is not None and flags >= 0:
                    return _from_flags(flags)
    return None


def _from_flags(flags: int) -> Power:
    ever = flags | flags >> _SINCE_BOOT
    return Power(
        under_voltage=bool(flags & _UNDER_VOLTAGE),
        throttled=bool(flags & _HELD_DOWN),
        under_voltage_since_boot=bool(ever & _UNDER_VOLTAGE),
        throttled_since_boot=bool(ever & _HELD_DOWN),
    )


def _voltage_monitor(root: Path) -> Power | None:
    for monitor in children(root / "sys/class/hwmon", "hwmon"):
        if read_line(monitor / "name") == "rpi_volt":
            alarm = read_number(monitor / "in0_lcrit_alarm")
            if alarm is not None:
                low = alarm != 0
                return Power(
                    under_voltage=low,
                    throttled=None,
                    under_voltage_since_boot=True if low else None,
                    throttled_since_boot=None,
                )
    return None


def _jetson(root: Path) -> Power | None:
    alerts = _throttle_alerts(root)
    events = _over_current_events(root)
    if not alerts and not events:
        return None
    alarm = _under_voltage_alarm(root)
    throttled = any(alerts) if alerts else None
    counted = any(count > 0 for count in events.values()) if events else None
    return Power(
        under_voltage=None,
        throttled=throttled,
        under_voltage_since_boot=events[alarm] > 0 if alarm in events else None,
        throttled_since_boot=throttled or counted,
    )


def under_voltage_events(root: Path) -> int | None:
    """Return how often since boot the supply was too weak, on boards that count that without telling it as it happens."""
    return _over_current_events(root).get(_under_voltage_alarm(root) or 0)


def _under_voltage_alarm(root: Path) -> int | None:
    return next((_UNDER_VOLTAGE_ALARMS[name] for name in compatible(root) if name in _UNDER_VOLTAGE_ALARMS), None)


def _throttle_alerts(root: Path) -> list[bool]:
    states = []
    for device in children(root / "sys/class/thermal", "cooling_device"):
        if (read_line(device / "type") or "").endswith("-throttle-alert"):
            state = read_number(device / "cur_state")
            if state is not None:
                states.append(state > 0)
    return states


def _over_current_events(root: Path) -> dict[int, int]:
    events: dict[int, int] = {}
    for monitor in children(root / "sys/class/hwmon", "hwmon"):
        if read_line(monitor / "name") == "soctherm_oc":
            for alarm in _OVER_CURRENT_ALARMS:
                for counter in (f"oc{alarm}_event_cnt", f"oc{alarm}_irq_cnt"):
                    count = read_number(monitor / counter)
                    if count is not None and read_number(monitor / f"oc{alarm}_throt_en") != 0:
                        events[alarm] = count
    return events
