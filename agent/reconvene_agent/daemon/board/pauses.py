"""Whether the board may work now, and why not: heat, a weak supply, training windows, a word of command. Pure.

One guard serves the daemon and the command line. It is told how the board fares, and asked before a worker starts and again
and again while one runs.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from reconvene_agent.core import windows as times
from reconvene_agent.core.clock import Now
from reconvene_agent.core.device import Strain
from reconvene_agent.core.errors import ErrorCode
from reconvene_agent.core.profile import Thermal
from reconvene_agent.core.windows import Window

LOOK_EVERY_S = 5.0
FRESH_S = 2 * LOOK_EVERY_S
"""How long what was last seen of the board still says whether a worker may start."""
CALM_S = 60.0
"""How long the supply must suffice before work goes on: it was the work that was too much for it."""
TRAINS = frozenset({"specialize"})
"""The operations that keep to the training windows."""

Cause = Literal["command", "heat", "voltage", "clock", "window"]

# What a command fails with whose time is over while it has to wait.
_CODES: dict[Cause, ErrorCode] = {
    "heat": ErrorCode.THERMAL,
    "window": ErrorCode.OUTSIDE_WINDOW,
    "clock": ErrorCode.CLOCK_UNSYNCED,
}


PAUSED = "paused: "
"""How the reason of every paused command begins."""


class Hold(Struct, frozen=True):
    """What work waits for: the cause for programs, and the same in words."""

    cause: Cause
    text: str

    @property
    def reason(self) -> str:
        return f"{PAUSED}{self.text}"

    def code(self, otherwise: ErrorCode) -> ErrorCode:
        """Return what a command fails with whose time is over while it waits for this."""
        return _CODES.get(self.cause, otherwise)


class Guard:
    """What is known of the board, and what of it keeps work waiting.

    Too hot above ``hot_c``, until it is below ``cool_c``: in between it stays as it was. What a board cannot tell changes
    nothing.
    """

    def __init__(self, thermal: Thermal, windows: tuple[Window, ...] = (), ordered_by: str = "") -> None:
        """``ordered_by`` names who has paused everything; empty when nobody has."""
        self._thermal = thermal
        self._windows = windows
        self._felt_at: float | None = None
        self._calm_since: float | None = None
        self._weak_events: int | None = None
        self._clock_was_right = False
        self.ordered_by = ordered_by
        self.heat = ""
        """Why the board is too hot, in words; empty when it is not."""
        self.weakness = ""
        """The same of its supply."""

    def feel(self, strain: Strain, now: Now) -> None:
        """Take in how the board fares."""
        self._felt_at = now.mono
        self._clock_was_right |= now.synchronized
        hot, cool, degrees = self._thermal.hot_c, self._thermal.cool_c, strain.temperature_c
        if degrees is not None and degrees > hot and not self.heat:
            self.heat = f"the board is too hot: {degrees:.0f} °C, over {hot:g}; goes on below {cool:g}"
        elif degrees is not None and degrees < cool:
            self.heat = ""
        weak = self._is_weak(strain)
        if weak:
            self.weakness = "under-voltage: the board's power supply is too weak"
            self._calm_since = None
        elif weak is False and self.weakness:
            self._calm_since = now.mono if self._calm_since is None else self._calm_since
            if now.mono - self._calm_since >= CALM_S:
                self.weakness = ""

    def _is_weak(self, strain: Strain) -> bool | None:
        """Whether the supply is too weak, or was since it was last felt; None where the board does not tell."""
        if strain.under_voltage is not None or strain.under_voltage_events is None:
            return strain.under_voltage
        before, self._weak_events = self._weak_events, strain.under_voltage_events
        return before is not None and strain.under_voltage_events > before

    def fresh(self, now: Now) -> bool:
        """Whether the board was looked at recently enough to start something."""
        return self._felt_at is not None and now.mono - self._felt_at <= FRESH_S

    @property
    def order(self) -> Hold | None:
        """What somebody's word keeps waiting."""
        return Hold("command", f"on command ({self.ordered_by})") if self.ordered_by else None

    def hold(self, op: str, now: Now) -> Hold | None:
        """Return what an operation has to wait for now."""
        if self.ordered_by:
            return self.order
        if self.heat:
            return Hold("heat", self.heat)
        if self.weakness:
            return Hold("voltage", self.weakness)
        if op not in TRAINS or not self._windows:
            return None
        # A clock that was right once stays good enough for a window.
        if not (self._clock_was_right or now.synchronized):
            return Hold("clock", "training windows need a clock that is synchronised (CLOCK_UNSYNCED)")
        if not times.open_at(self._windows, now.wall):
            return Hold("window", f"outside of the training windows ({', '.join(map(str, self._windows))})")
        return None

    def opens_at(self, now: Now) -> float:
        """Return when a training window opens next, in seconds since the epoch; there must be one."""
        return times.next_opening(self._windows, now.wall)
