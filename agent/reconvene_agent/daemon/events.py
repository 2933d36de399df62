"""What can happen to the agent. Adapters post these; nothing else reaches the agent's state."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from reconvene_agent.core.census import Census
from reconvene_agent.core.device import Device, Strain
from reconvene_agent.core.errors import ErrorCode
from reconvene_agent.core.overlay import Overlay
from reconvene_agent.core.protocol import Upward
from reconvene_agent.core.release import Release
from reconvene_agent.core.shelf import Fall, Switch


class Started(Struct, frozen=True):
    """The loop runs; what the journal held was handed over before."""


class Connected(Struct, frozen=True):
    """The broker has accepted us and our subscriptions; ``protocol`` is the MQTT version agreed on."""

    protocol: str


class Disconnected(Struct, frozen=True):
    """There is no broker any more, or none yet; ``reason`` is one line for people, ``retry_s`` until the next try."""

    reason: str
    retry_s: float


class Received(Struct, frozen=True):
    """A message on one of our topics. ``payload`` is None when it was too large to be kept; ``size`` is its bytes."""

    topic: str
    payload: bytes | None
    size: int


class Acknowledged(Struct, frozen=True):
    """The broker has taken over the publication that carried this token."""

    token: str


class Delivered(Struct, frozen=True):
    """The broker has taken over the publication with this handle, or refused it; the loop knows what it was."""

    handle: int
    refusal: str = ""


class LaunchFailed(Struct, frozen=True):
    """The worker for the command ``key`` could not be started."""

    key: str
    code: ErrorCode
    detail: str


class JournalFailed(Struct, frozen=True):
    """The journal could not store the command ``label`` at its very first state, so nothing may be done about it."""

    label: str
    detail: str


class Sampled(Struct, frozen=True):
    """The board was probed: the figures to report, all its facts, and whether something holds its clocks down, if it tells."""

    figures: dict[str, Any]
    device: Device
    held_down: bool | None = None


class DataCounted(Struct, frozen=True):
    """How many local data there are now."""

    census: Census


class Looked(Struct, frozen=True):
    """It was seen how the board fares."""

    strain: Strain


class Launched(Struct, frozen=True):
    """A worker for the command ``key`` is being started; ``limits_mb`` are the limits of memory that it was told, by name."""

    key: str
    limits_mb: dict[str, float]


class WorkerSaid(Struct, frozen=True):
    """A message of worker ``key``."""

    key: str
    message: Upward


class WorkerEnded(Struct, frozen=True):
    """Worker ``key`` is gone.

    Attributes:
        returncode: of the process; negative for the signal that ended it.
        broken: how it broke the protocol; empty when it kept to it.
        out_of_memory: the kernel counted an out-of-memory kill while it ran.
        stderr: the end of what it wrote there.
    """

    key: str
    returncode: int
    broken: str
    out_of_memory: bool
    stderr: str


class ReleaseRead(Struct, frozen=True):
    """The current release, looked up on disk and proved.

    Attributes:
        problem: one line about a release that is broken, while that matters.
        fell: the release that has just been found broken, and what serves in its place.
    """

    release: Release | None
    problem: str = ""
    fell: Fall | None = None


class ReleaseSwitched(Struct, frozen=True):
    """What came of a switch for the command ``label``: it was made, or why it was not."""

    label: str
    switch: Switch | None
    code: ErrorCode = ErrorCode.INTERNAL
    detail: str = ""


class SettingsUpdated(Struct, frozen=True):
    """What came of changed settings for the command ``label``.

    Attributes:
        overlay: what holds from now on, with a trial if the agent must come up again with it; None if they were refused.
        code, detail: why they were.
    """

    label: str
    overlay: Overlay | None
    code: ErrorCode = ErrorCode.INTERNAL
    detail: str = ""


class SettingsSettled(Struct, frozen=True):
    """The trial of settings is over, as ``overlay`` tells; None if that could not be written down, and why in ``detail``."""

    overlay: Overlay | None
    detail: str = ""


class RestartAsked(Struct, frozen=True):
    """The journaled command ``label`` is to have its restart."""

    label: str


class LogRead(Struct, frozen=True):
    """The lines of the log that the command ``label`` wants, in ``parts`` that a message can carry."""

    label: str
    parts: list[list[dict[str, Any]]]


class StatusAsked(Struct, frozen=True):
    """Somebody asks on the local socket; the answer goes to ``ticket``."""

    ticket: int


class PauseAsked(Struct, frozen=True):
    """Somebody asks on the local socket to pause, or else to go on; the answer goes to ``ticket``."""

    ticket: int
    pause: bool


class StopAsked(Struct, frozen=True):
    """The agent is to shut down."""


class Tick(Struct, frozen=True):
    """Time has passed: a deadline the agent asked for is due."""


Event = (
    Started
    | Connected
    | Disconnected
    | Received
    | Acknowledged
    | LaunchFailed
    | JournalFailed
    | Launched
    | Sampled
    | DataCounted
    | Looked
    | ReleaseRead
    | ReleaseSwitched
    | SettingsUpdated
    | SettingsSettled
    | RestartAsked
    | LogRead
    | StatusAsked
    | PauseAsked
    | StopAsked
    | Tick
    | WorkerSaid
    | WorkerEnded
)
