"""The commands the agent knows, and when something is due with one of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from reconvene_agent.core.clock import Now
from reconvene_agent.core.errors import UsageError
from reconvene_agent.core.job import Command, Status
from reconvene_agent.core.messages import OPERATIONS, Envelope, decode_envelope
from reconvene_agent.core.topics import Topics
from reconvene_agent.daemon.effects import Effect, Forget, Publish, Save

CLEAR_AFTER_S = 24 * 3600.0
FORGET_AFTER_S = 7 * 24 * 3600.0
MAX_KEPT = 1000
UNSYNCHRONIZED_RETRY_S = 5.0
WAITING_FOR_CLOCK = "waits for the clock to be synchronised (CLOCK_UNSYNCED)"


def envelope_of(command: Command) -> Envelope:
    """Return the envelope of a command that was accepted before."""
    return decode_envelope({**command.request, "status": Status.INIT.value})


def waits_for(envelope: Envelope, now: Now) -> str:
    """Return why a command cannot start yet; empty when it can."""
    if envelope.timed and not now.synchronized:
        return WAITING_FOR_CLOCK
    if envelope.not_before is not None and envelope.not_before > now.wall:
        return "waits for its not_before"
    return ""


def expired(envelope: Envelope, now: Now) -> bool:
    """Whether a command's expires_at has passed, as far as the clock can be believed."""
    return envelope.expires_at is not None and now.synchronized and envelope.expires_at <= now.wall


def _understood(command: Command) -> bool:
    try:
        envelope_of(command)
    except UsageError:
        return False
    return command.op in OPERATIONS


class CommandBook:
    """Commands by label; the view in memory of what the journal holds."""

    def __init__(self, commands: Iterable[Command]) -> None:
        """Commands that this version does not understand (a newer one left them, say) are not taken in."""
        self._commands = {command.label: command for command in commands if _understood(command)}

    def get(self, label: str) -> Command | None:
        return self._commands.get(label)

    def put(self, command: Command) -> None:
        self._commands[command.label] = command

    def remove(self, label: str) -> None:
        self._commands.pop(label, None)

    def every(self) -> list[Command]:
        """Return all that are known, finished ones too."""
        return list(self._commands.values())

    def find(self, command_id: str, besides: str) -> Command | None:
        """Return the unfinished command with this id, whatever its operation, but for the one labelled ``besides``."""
        found = (command for command in self.unfinished() if command.id == command_id and command.label != besides)
        return next(found, None)

    def unfinished(self) -> list[Command]:
        """Return the commands that are not terminal, oldest first."""
        return sorted((c for c in self._commands.values() if not c.status.terminal), key=lambda command: command.received_at)

    def scheduled(self) -> list[Command]:
        return [command for command in self.unfinished() if command.status is Status.SCHEDULED]

    def unacknowledged(self) -> list[Command]:
        """Return the finished commands whose end the broker has not confirmed."""
        return [c for c in self._commands.values() if c.status.terminal and not c.acknowledged and not c.cleared]

    def next_start(self, now: Now) -> float | None:
        """Return the monotonic time at which a scheduled command wants to be looked at again."""
        times = []
        for command in self.scheduled():
            envelope = envelope_of(command)
            if envelope.timed and not now.synchronized:
                times.append(now.mono + UNSYNCHRONIZED_RETRY_S)
            else:
                moments = [moment for moment in (envelope.not_before, envelope.expires_at) if moment is not None]
                times += [now.mono + max(0.0, moment - now.wall) for moment in moments if moment > now.wall]
        return min(times, default=None)

    def tidy(self, topics: Topics, now: Now, online: bool) -> list[Effect]:
        """Clear finished commands from the broker after a day and forget them after a week; keep their number bounded."""
        finished = sorted((c for c in self._commands.values() if c.status.terminal), key=lambda command: command.updated_at)
        surplus = len(finished) - MAX_KEPT
        effects: list[Effect] = []
        for index, command in enumerate(finished):
            age = now.wall - command.updated_at if now.synchronized else 0.0
            crowded = index < surplus
            cleared = command.cleared
            if not cleared and online and (age > CLEAR_AFTER_S or crowded):
                cleared = True
                self.put(msgspec.structs.replace(command, cleared=True))
                effects += [Save(self._commands[command.label]), Publish(topics.command(command.op, command.id), b"")]
            if cleared and (age > FORGET_AFTER_S or crowded):
                self.remove(command.label)
                effects.append(Forget(command))
        return effects
