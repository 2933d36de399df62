"""Changing settings on disk: proposed changes are validated with the whole configuration, put on trial, kept or taken back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reconvene_agent.core import config, consistency, overlay, updatable
from reconvene_agent.core.config import Config
from reconvene_agent.core.errors import AgentError, UsageError
from reconvene_agent.core.overlay import Outcome, Overlay, Trial
from reconvene_agent.daemon import effects as do
from reconvene_agent.daemon import events

_SECTIONS = Config.__struct_fields__


class SettingsKeeper:
    """Changes settings over the owner's file ``source``; ``running`` is what the agent has come up with."""

    def __init__(self, running: Config, source: Path | None) -> None:
        self._running = running
        self._source = source

    def update(self, wanted: do.UpdateSettings) -> events.SettingsUpdated:
        """Validate changes and put them on trial, or in place at once where nothing in use differs."""
        try:
            found = self._propose(wanted)
            overlay.write(self._running.state_dir, found)
        except AgentError as error:
            return events.SettingsUpdated(wanted.label, None, error.code, error.message.replace("\n", "; "))
        except OSError as error:
            return events.SettingsUpdated(wanted.label, None, detail=f"the settings cannot be written: {error.strerror or error}")
        return events.SettingsUpdated(wanted.label, found)

    def _propose(self, wanted: do.UpdateSettings) -> Overlay:
        """Return the overlay with the changes.

        Raises:
            UsageError: the whole configuration would not be valid, or the agent could be out of reach.
        """
        before = overlay.read(self._running.state_dir).settings
        settings = updatable.applied(before, wanted.changes)
        owners: dict[str, Any] = {} if self._source is None else config.read_owners(self._source)
        new = config.decode(updatable.merged(owners, settings))
        if new.state_dir != self._running.state_dir:
            raise UsageError("the agent's state_dir was changed in its file: restart it first")
        _refuse_to_be_out_of_reach(self._running, new)
        changed = updatable.differences(self._running, new, _SECTIONS)
        if not changed:
            return Overlay(settings, None, Outcome(wanted.by, True, changed))
        return Overlay(settings, Trial(wanted.by, before, new.broker != self._running.broker, wanted.trial_s, changed))

    def settle(self, wanted: do.SettleSettings) -> events.SettingsSettled:
        """End the trial."""
        try:
            found = overlay.read(self._running.state_dir)
            if found.trial is not None:
                found = found.settled(wanted.held, wanted.detail)
                overlay.write(self._running.state_dir, found)
        except AgentError as error:
            return events.SettingsSettled(None, error.message)
        except OSError as error:
            return events.SettingsSettled(None, error.strerror or str(error))
        return events.SettingsSettled(found)


def _refuse_to_be_out_of_reach(running: Config, new: Config) -> None:
    if not new.broker.url:
        raise UsageError("broker.url: must not be empty: no command would reach the agent any more")
    if (
        running.broker.url
        and consistency.broker_address(running.broker.url)[2]
        and not consistency.broker_address(new.broker.url)[2]
    ):
        raise UsageError("broker.url: a command cannot switch TLS off")


def come_up(source: Path | None) -> config.Adopted:
    """Return the configuration to come up with, counting the start if settings are on trial; the state folder is held.

    Raises:
        UsageError: the owner's file has mistakes.
        AgentError, OSError: what commands have changed cannot be written.
    """
    adopted = config.adopt(source)
    if adopted.overlay.trial is None:
        return adopted
    state_dir = adopted.config.state_dir
    if adopted.problem:
        overlay.write(state_dir, adopted.overlay.settled(False, adopted.problem))
    else:
        overlay.note_start(state_dir)
    return config.adopt(source)


def give_up(state_dir: Path, why: str) -> bool:
    """Take back the settings on trial, with which the agent cannot come up; return whether there were any.

    Raises:
        AgentError, OSError: that cannot be written.
    """
    found = overlay.read(state_dir)
    if found.trial is None:
        return False
    overlay.write(state_dir, found.settled(False, f"the agent cannot come up with them: {why}"))
    return True
