"""What is kept and told of commands: their states in the journal and on the broker, their ends, their refusals. Pure."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from reconvene_agent.core.clock import Now
from reconvene_agent.core.job import Command, payload
from reconvene_agent.core.messages import OPERATIONS
from reconvene_agent.daemon import announce, intake
from reconvene_agent.daemon import effects as do
from reconvene_agent.daemon.book import CommandBook
from reconvene_agent.daemon.effects import Effect
from reconvene_agent.daemon.identity import Identity
from reconvene_agent.daemon.trust import Trust

Effects = Iterator[Effect]


class Ledger:
    """The book of one agent's commands, with what is stored and published of each."""

    def __init__(self, identity: Identity, book: CommandBook, trust: Trust) -> None:
        self._identity = identity
        self._topics = identity.topics
        self._book = book
        ended = [command for command in book.every() if command.status.terminal and OPERATIONS[command.op].is_job]
        self._last = max(ended, key=lambda command: command.updated_at, default=None)
        self._trust = trust

    def publish(self, command: Command) -> Effect:
        """Return what publishes a command's state."""
        return announce.state(self._topics, command)

    def keep(self, command: Command, first: bool = False) -> Effects:
        """Store and publish a command's state, its ``first`` one or another."""
        self._book.put(command)
        yield do.Save(command, first)
        yield self.publish(command)

    def finish(self, command: Command) -> Effects:
        """Store and publish a command's end."""
        yield from self.keep(command)
        ending = f"failed: {command.error.code.value}: {command.reason}" if command.error else command.status.value
        yield do.Log("warning" if command.error else "info", f"{command.label} {ending}", command.label)
        if OPERATIONS[command.op].is_job:
            self._last = command
            yield self._last_result(command)
            yield do.Clean(command.key)

    def refuse(self, found: intake.Refused, known: Command | None = None) -> Effects:
        """Answer what never becomes a command; ``known`` is the one that has its id."""
        refusal = found.command
        yield do.Log("warning", f"{refusal.label} is refused: {refusal.reason}", refusal.label)
        topic = self._topics.command(refusal.op, refusal.id)
        # Where the id belongs to another command the answer passes by, and the retained message stays that command's.
        yield do.Publish(topic, payload(refusal), retain=not found.reused)
        if found.reused and known is not None:
            yield self.publish(known)

    def note_cleared(self, known: Command) -> Effects:
        """Note that a finished command was cleared from the broker."""
        if known.status.terminal and not known.cleared:
            cleared = msgspec.structs.replace(known, cleared=True, acknowledged=True)
            self._book.put(cleared)
            yield do.Save(cleared)

    def acknowledged(self, label: str) -> Effects:
        """Note that the broker has the end of a command."""
        command = self._book.get(label)
        if command is not None and command.status.terminal and not command.acknowledged:
            command = msgspec.structs.replace(command, acknowledged=True)
            self._book.put(command)
            yield do.Save(command)

    def announce(self) -> Effects:
        """Publish how the last job ended, and the state of every command that the broker may not know."""
        if self._last is not None:
            yield self._last_result(self._last)
        for command in (*self._book.unfinished(), *self._book.unacknowledged()):
            yield self.publish(command)

    def tidy(self, now: Now, online: bool) -> Effects:
        """Clear and forget old commands; of those that were signed the nonces are kept until they have expired."""
        for effect in self._book.tidy(self._topics, now, online):
            if isinstance(effect, do.Forget):
                yield do.Forget(effect.command, self._trust.retire(effect.command))
            else:
                yield effect
        until = self._trust.forgettable(now)
        if until is not None:
            yield do.ForgetNonces(until)

    def _last_result(self, command: Command) -> Effect:
        return announce.twin(self._identity, "last_result", announce.last_result(command))
