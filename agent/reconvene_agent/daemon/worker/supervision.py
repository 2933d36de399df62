"""When a worker must be stopped, and how hard: pure rules about time, shared by the daemon and the command line.

A worker has to shake hands in time, to speak up now and then, and to leave when asked: first in words, then by SIGTERM,
then by SIGKILL.
"""

from __future__ import annotations

from enum import Enum

from reconvene_agent.core.config import WorkerSection


class Action(Enum):
    """What is due to be done to the worker."""

    TERMINATE = "terminate"
    KILL = "kill"


TERMINATE_GRACE_S = 5.0


class Supervision:
    """Watches one worker by the clock. ``verdict`` says why it is being killed, when that was our decision."""

    def __init__(self, limits: WorkerSection, mono: float) -> None:
        self._limits = limits
        self._ready = False
        self._asked = False
        self._action: Action | None = None
        self._due: float | None = mono + limits.start_timeout_s
        self.verdict = ""

    def heard(self, mono: float) -> None:
        """The worker said something that makes sense."""
        self._ready = True
        if not self._asked:
            self._due = mono + self._limits.stall_timeout_s

    def asked_to_stop(self, mono: float) -> None:
        """The worker was asked to stop, or has finished and should be leaving."""
        if not self._asked:
            self._asked = True
            self._due = mono + self._limits.stop_timeout_s

    @property
    def due(self) -> float | None:
        """When ``step`` wants to be called again, on the monotonic clock; None when nothing is left to do."""
        return self._due

    def step(self, mono: float) -> Action | None:
        """Return what to do to the worker now, if anything; each action is returned once."""
        if self._due is None or mono < self._due:
            return None
        if not self._asked:
            self._asked = True
            limit = self._limits.stall_timeout_s if self._ready else self._limits.start_timeout_s
            self.verdict = f"silent for {limit:g} s" if self._ready else f"no handshake within {limit:g} s"
        if self._action is None:
            self._action, self._due = Action.TERMINATE, mono + TERMINATE_GRACE_S
        else:
            self._action, self._due = Action.KILL, None
        return self._action
