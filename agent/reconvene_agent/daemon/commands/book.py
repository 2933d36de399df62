"""The commands the agent knows, and when something is due with one of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from reconvene_agent.core.clock import Now
from reconvene_agent.core.errors import UsageError
from reconvene_agent.core.job import Command, Status, payload
from reconvene_agent.core.messages import OPERATIONS, Envelope, envelope_of
from reconvene_agent.core.topics import Topics
from reconvene_agent.daemon.effects import Effect, Forget, Publish, Save

CLEAR_AFTER_S = 24 * 3600.0
FORGET_AFTER_S = 7 * 24 * 3600.0
MAX_KEPT = 1000
"""So many finished commands are kept, with so many bytes in all; a few more until the next time they are tidied."""
MAX_KEPT_BYTES = 1 << 19
CROWD = 1.1
UNSYNCHRONIZED_RETRY_S = 5.0
WAITING_FOR_CLOCK = "waits for the clock to be synchronised (CLOCK_UNSYNCED)"


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
        self._commands: dict[str, Command] = {}
        self._unfinished: dict[str, Command] = {}
        self._finished: dict[str, tuple[int, float | None]] = {}
        """Of each finished command its bytes, and when on the monotonic clock it was first tidied."""
        self._bytes = 0
        self._turns = 0
        for command in commands:
            if _understood(command):
                self._turns = max(self._turns, command.turn)
                self._take_in(command)

    def get(self, label: str) -> Command | None:
        return self._commands.get(label)

    def put(self, command: Command) -> Command:
        """Take in the newest state of a command and return it, with its turn: a new one if it is new or has just ended."""
        known = self._commands.get(command.label)
        if known is None or known.status.terminal != command.status.terminal:
            self._turns += 1
            turn = self._turns
        else:
            turn = known.turn
        command = msgspec.structs.replace(command, turn=turn)
        self._take_in(command)
        return command

    def _take_in(self, command: Command) -> None:
        self._commands[command.label] = command
        if not command.status.terminal:
            self._unfinished[command.label] = command
        else:
            self._unfinished.pop(command.label, None)
            if command.label not in self._finished:
                size = len(payload(command))
                self._finished[command.label] = (size, None)
                self._bytes += size

    def remove(self, label: str) -> None:
        self._commands.pop(label, None)
        self._unfinished.pop(label, None)
        self._bytes -= self._finished.pop(label, (0, None))[0]

    @property
    def crowded(self) -> bool:
        """Whether there are more finished commands than can be kept."""
        return len(self._finished) > CROWD * MAX_KEPT or self._bytes > CROWD * MAX_KEPT_BYTES

    def every(self) -> list[Command]:
        """Return all that are known, finished ones too."""
        return list(self._commands.values())

    def find(self, command_id: str, besides: str) -> Command | None:
        """Return the unfinished command with this id, whatever its operation, but for the one labelled ``besides``."""
        found = (command for command in self.unfinished() if command.id == command_id and command.label != besides)
        return next(found, None)

    def unfinished(self) -> list[Command]:
        """Return the commands that are not terminal, in the order they came."""
        return sorted(self._unfinished.values(), key=lambda command: (command.turn, command.received_at))

    def ended(self) -> list[Command]:
        """Return the commands that are terminal, in the order they ended."""
        found = (command for command in self._commands.values() if command.status.terminal)
        return sorted(found, key=lambda command: (command.turn, command.updated_at))

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
        """Clear finished commands from the broker after a day and forget them after a week; keep their number bounded.

        The day begins when the broker has confirmed the end and the clock can be believed, so that nothing disappears unseen.
        Without such a clock it is a day of running.
        """
        finished = self.ended()
        surplus = self._surplus(finished)
        effects: list[Effect] = []
        for index, known in enumerate(finished):
            size, seen = self._finished[known.label]
            crowded = index < surplus
            command = known
            if known.acknowledged:
                command = shown(known, now)
                seen = now.mono if seen is None else seen
                self._finished[known.label] = (size, seen)
            age = _age(command, 0.0 if seen is None else now.mono - seen, now)
            clear = not command.cleared and online and (age > CLEAR_AFTER_S or crowded)
            command = msgspec.structs.replace(command, cleared=command.cleared or clear)
            if command.cleared and (age > FORGET_AFTER_S or crowded):
                self.remove(command.label)
                effects.append(Forget(command))
            elif command != known:
                effects.append(Save(self.put(command)))
            if clear:
                effects.append(Publish(topics.command(command.op, command.id), b""))
        return effects

    def _surplus(self, finished: list[Command]) -> int:
        """Return how many of these commands, the oldest first, are too many."""
        fitting, total = 0, 0
        for command in reversed(finished[max(0, len(finished) - MAX_KEPT) :]):
            total += self._finished[command.label][0]
            fitting += total <= MAX_KEPT_BYTES
        return len(finished) - fitting


def shown(command: Command, now: Now) -> Command:
    """Return a command whose end the broker has confirmed, with the time since when, as soon as there is one to believe."""
    since = command.shown_since
    if now.synchronized and (since is None or since > now.wall):
        since = now.wall
    return msgspec.structs.replace(command, acknowledged=True, shown_since=since)


def _age(command: Command, running_s: float, now: Now) -> float:
    """Return for how long the broker has had a command's end; 0 while it has not confirmed it."""
    if not command.acknowledged:
        return 0.0
    since = command.shown_since if now.synchronized else None
    return running_s if since is None else max(running_s, now.wall - since)
