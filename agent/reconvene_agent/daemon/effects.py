"""What the agent wants done, in order. The executor does it; a publication without a connection is simply not made."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from reconvene_agent.core.job import Command
from reconvene_agent.core.options import LogLevel
from reconvene_agent.daemon.security.trust import Nonce

Kind = Literal["measurement", "event"]


class Save(Struct, frozen=True):
    """Store a command's state in the journal, synced, before anything that follows; another one's ``also``, or neither.

    If the very ``first`` state cannot be stored, nothing that follows is done and the agent hears of it; a later one is
    tried again until it is stored.
    """

    command: Command
    first: bool = False
    also: Command | None = None

    @property
    def commands(self) -> tuple[Command, ...]:
        return (self.command,) if self.also is None else (self.command, self.also)


class Forget(Struct, frozen=True):
    """Remove a command from the journal, but for the ``nonce`` of its signature."""

    command: Command
    nonce: Nonce | None = None


class ForgetNonces(Struct, frozen=True):
    """Remove the nonces of commands that expire by then, in seconds since the epoch; such a command never passes again."""

    until: float


class Publish(Struct, frozen=True):
    """Publish at QoS 1. With a ``token`` the broker's acknowledgement comes back as an event."""

    topic: str
    payload: bytes
    retain: bool = True
    token: str = ""


class Record(Struct, frozen=True):
    """Put a measurement or an event into the spool, from where it reaches the broker sooner or later."""

    kind: Kind
    topic: str
    document: dict[str, Any]


class Launch(Struct, frozen=True):
    """Start a worker for a command."""

    command: Command


class AskWorker(Struct, frozen=True):
    """Ask the worker to stop at a safe point."""

    mode: Literal["cancel", "suspend"]


class EndWorker(Struct, frozen=True):
    """Signal the worker: SIGTERM, or SIGKILL when ``hard``."""

    hard: bool


class Clean(Struct, frozen=True):
    """Remove what a finished command left in its work folder."""

    key: str


class Sample(Struct, frozen=True):
    """Probe the board."""


class CountData(Struct, frozen=True):
    """Count the local data that the configuration names."""


class Look(Struct, frozen=True):
    """See how the board fares, no more than that."""


class TimeModel(Struct, frozen=True):
    """Start a worker that times the deployed model."""


class EndTiming(Struct, frozen=True):
    """Kill the worker that times the deployed model."""


class KeepPause(Struct, frozen=True):
    """Keep on disk who has paused everything on command, or, when empty, that nobody has."""

    ordered_by: str


class KeepDiscovered(Struct, frozen=True):
    """Keep on disk which topics the broker may hold for Home Assistant."""

    topics: tuple[str, ...]


class Expose(Struct, frozen=True):
    """Write the figures for Prometheus: the status document and the board's ``figures``, measured at ``wall``."""

    status: dict[str, Any]
    figures: dict[str, Any]
    wall: float


class ReadRelease(Struct, frozen=True):
    """Look up the current release, and prove that it is whole."""


class SwitchRelease(Struct, frozen=True):
    """Let another release serve, for the command ``label``: the one of a version, or the one so many steps back.

    ``by`` names the command for ever, so that it is done once.
    """

    label: str
    by: str
    to: str | int


class UpdateSettings(Struct, frozen=True):
    """Put changed settings on trial, for the command ``label`` whose name for ever is ``by``; the outcome comes back.

    ``changes`` are values by dotted name; ``trial_s`` is how long the broker may take to be reached.
    """

    label: str
    by: str
    changes: dict[str, Any]
    trial_s: float


class SettleSettings(Struct, frozen=True):
    """Keep the settings on trial, or go back to those before for the reason in ``detail``."""

    held: bool
    detail: str = ""


class AskRestart(Struct, frozen=True):
    """Let the command ``label`` have its restart, now that it is journaled."""

    label: str


class ReadLog(Struct, frozen=True):
    """Read the last lines of the log, of a level at least and, unless empty, of the command with an id, for ``label``."""

    label: str
    lines: int
    level: LogLevel
    command: str


class Answer(Struct, frozen=True):
    """Answer a question from the local socket."""

    ticket: int
    document: dict[str, Any]


class Remember(Struct, frozen=True):
    """Keep a status document on disk, for when the agent does not run."""

    document: dict[str, Any]


class Log(Struct, frozen=True):
    """Say something in the log, ``about`` the command with this label or about none."""

    level: LogLevel
    text: str
    about: str = ""


class Quit(Struct, frozen=True):
    """Leave the loop; to come up ``again``, or for good."""

    again: bool = False


Effect = (
    Save
    | Forget
    | ForgetNonces
    | Publish
    | Record
    | Launch
    | AskWorker
    | EndWorker
    | Clean
    | Sample
    | CountData
    | Look
    | TimeModel
    | EndTiming
    | KeepPause
    | KeepDiscovered
    | Expose
    | ReadRelease
    | SwitchRelease
    | UpdateSettings
    | SettleSettings
    | AskRestart
    | ReadLog
    | Answer
    | Remember
    | Log
    | Quit
)
