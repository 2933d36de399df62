"""What commands have changed of the settings: one small file in the state folder, over the owner's own, which stays untouched.

A change begins as a trial. The file holds what it takes back to end it either way, so that one atomic write is each step: the
settings and their trial, then the settings with the outcome, or those before with the outcome.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from reconvene_agent.core import atomic, updatable
from reconvene_agent.core.decoding import from_json
from reconvene_agent.core.updatable import Settings

FILE = "settings.json"
MAX_STARTS = 3
"""So often may the agent be started on trial: settings that bring it down are taken back."""


class Trial(Struct, frozen=True):
    """Settings that have not proved themselves yet.

    Attributes:
        by: names the command for ever.
        before: the settings to go back to.
        needs_broker: whether they hold only once the broker has been reached with them.
        seconds: how long that may take.
        changed: the names of the settings that differ from those that were in use.
        starts: how often the agent was started with them.
    """

    by: str
    before: Settings
    needs_broker: bool
    seconds: float
    changed: list[str]
    starts: int = 0


class Outcome(Struct, frozen=True):
    """How the last trial ended; ``detail`` says why the settings were taken back."""

    by: str
    held: bool
    changed: list[str]
    detail: str = ""


class Overlay(Struct, frozen=True):
    """The whole file."""

    settings: Settings = {}
    trial: Trial | None = None
    last: Outcome | None = None

    def settled(self, held: bool, detail: str = "") -> Overlay:
        """Return the overlay after its trial: kept, or taken back for the reason in ``detail``."""
        if self.trial is None:
            return self
        outcome = Outcome(self.trial.by, held, self.trial.changed, detail)
        return Overlay(self.settings if held else self.trial.before, None, outcome)


_decoder = msgspec.json.Decoder(Overlay)


def read(state_dir: Path) -> Overlay:
    """Return what commands have changed. Nothing, where no command has, where we may not look, and where the file is damaged."""
    try:
        found = from_json((state_dir / FILE).read_bytes(), _decoder.decode)
    except (OSError, msgspec.DecodeError):
        return Overlay()
    return replace(found, settings=updatable.listed(found.settings))


def write(state_dir: Path, overlay: Overlay) -> None:
    """Put an overlay in place, synced.

    Raises:
        AgentError: NO_DISK when the disk is full.
        OSError: the file cannot be written.
    """
    atomic.write_bytes(state_dir / FILE, msgspec.json.encode(overlay))


def note_start(state_dir: Path) -> Overlay:
    """Count a start of the agent if settings are on trial, and take them back when they have had their starts.

    Raises:
        AgentError: NO_DISK when the disk is full.
        OSError: the file cannot be written.
    """
    found = read(state_dir)
    trial = found.trial
    if trial is None:
        return found
    if trial.starts >= MAX_STARTS:
        found = found.settled(False, f"the agent was started {MAX_STARTS} times with them, and they have not held")
    else:
        found = replace(found, trial=replace(trial, starts=trial.starts + 1))
    write(state_dir, found)
    return found
