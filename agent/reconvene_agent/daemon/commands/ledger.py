"""What is kept and told of commands: their states in the journal and on the broker, their ends, their refusals. Pure."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from reconvene_agent.core.clock import Now
from reconvene_agent.core.job import Command, payload
from reconvene_agent.core.messages import OPERATIONS
from reconvene_agent.core.topics import CommandTopic
from reconvene_agent.daemon import effects as do
from reconvene_agent.daemon.commands import intake
from reconvene_agent.daemon.commands.book import CLEAR_AFTER_S, MAX_KEPT, CommandBook, shown
from reconvene_agent.daemon.effects import Effect
from reconvene_agent.daemon.reporting import announce
from reconvene_agent.daemon.reporting.identity import Identity
from reconvene_agent.daemon.security.trust import Trust

Effects = Iterator[Effect]


class Ledger:
    """The book of one agent's commands, with what is stored and published of each."""

    def __init__(self, identity: Identity, book: CommandBook, trust: Trust) -> None:
        self._identity = identity
        self._topics = identity.topics
        self._book = book
        jobs = [command for command in book.ended() if OPERATIONS[command.op].is_job]
        self._last = jobs[-1] if jobs else None
        self._trust = trust
        self._refusals: dict[str, float] = {}
        """When, on the monotonic clock, an answer was published that no journal holds; by topic, the oldest first."""

    def publish(self, command: Command) -> Effect:
        """Return what publishes a command's state."""
        return announce.state(self._topics, command)

    def keep(self, command: Command, first: bool = False) -> Effects:
        """Store and publish a command's state, its ``first`` one or another."""
        command = self._book.put(command)
        yield do.Save(command, first)
        yield self.publish(command)

    def finish(self, command: Command) -> Effects:
        """Store and publish a command's end."""
        yield from self.store(command)
        yield from self.tell_end(command)

    def store(self, command: Command, also: Command | None = None) -> Effects:
        """Store a command's state, and another one's with it."""
        yield do.Save(self._book.put(command), also=None if also is None else self._book.put(also))

    def tell_end(self, command: Command) -> Effects:
        """Publish a command's end, which is stored."""
        yield self.publish(command)
        ending = f"failed: {command.error.code.value}: {command.reason}" if command.error else command.status.value
        yield do.Log("warning" if command.error else "info", f"{command.label} {ending}", command.label)
        if OPERATIONS[command.op].is_job:
            self._last = command
            yield self._last_result(command)
            yield do.Clean(command.key)

    def refuse(self, found: intake.Refused, known: Command | None, now: Now) -> Effects:
        """Answer what never becomes a command; ``known`` is the one that has its id."""
        refusal = found.command
        yield do.Log("warning", f"{refusal.label} is refused: {refusal.reason}", refusal.label)
        topic = self._topics.command(refusal.op, refusal.id)
        # Where the id belongs to another command the answer passes by, and the retained message stays that command's.
        yield do.Publish(topic, payload(refusal), retain=not found.reused)
        if not found.reused:
            self._note_refusal(topic, now)
        if found.reused and known is not None:
            yield self.publish(known)

    def _note_refusal(self, topic: str, now: Now) -> None:
        """Remember an answer that is to be cleared after a day though it is in no journal, as far as there is room."""
        self._refusals.pop(topic, None)
        self._refusals[topic] = now.mono
        if len(self._refusals) > MAX_KEPT:
            self._refusals.pop(next(iter(self._refusals)))

    def lost(self, found: intake.Orphan, now: Now) -> Effects:
        """Answer a state of ours that the journal does not know."""
        command = found.command
        yield do.Log("warning", f"{command.label} was running, but the journal does not know it", command.label)
        self._note_refusal(self._topics.command(command.op, command.id), now)
        yield self.publish(command)

    def repeat(self, known: Command) -> Effects:
        """Answer a command that was sent once more with the state it has, even where that was cleared already."""
        if known.cleared:
            known = msgspec.structs.replace(known, cleared=False, acknowledged=False, shown_since=None)
            yield do.Save(self._book.put(known))
        yield self.publish(known)

    def still_shown(self, topic: CommandTopic, known: Command | None) -> Effects:
        """Take in that the broker has an end that counts as cleared: it was cleared too early, or that did not get through."""
        if known is None:
            yield self._clear(topic)
            return
        yield do.Save(self._book.put(msgspec.structs.replace(known, cleared=False)))

    def _clear(self, topic: CommandTopic) -> Effect:
        return do.Publish(self._topics.command(topic.op, topic.id), b"")

    def note_cleared(self, known: Command, now: Now) -> Effects:
        """Note that a finished command was cleared from the broker."""
        if known.status.terminal and not known.cleared:
            yield do.Save(self._book.put(msgspec.structs.replace(shown(known, now), cleared=True)))

    def acknowledged(self, label: str, now: Now) -> Effects:
        """Note that the broker has the end of a command."""
        command = self._book.get(label)
        if command is not None and command.status.terminal and not command.acknowledged:
            yield do.Save(self._book.put(shown(command, now)))

    def announce(self) -> Effects:
        """Publish how the last job ended, and the state of every command that the broker may not know."""
        if self._last is not None:
            yield self._last_result(self._last)
        for command in (*self._book.unfinished(), *self._book.unacknowledged()):
            yield self.publish(command)

    def tidy(self, now: Now, online: bool) -> Effects:
        """Clear and forget old commands, and clear old refusals."""
        yield from self._tidy_book(now, online)
        for topic in [each for each, since in self._refusals.items() if online and now.mono - since > CLEAR_AFTER_S]:
            del self._refusals[topic]
            parsed = self._topics.parse_command(topic)
            if parsed is not None and self._book.get(f"{parsed.op}/{parsed.id}") is None:
                yield self._clear(parsed)
        until = self._trust.forgettable(now)
        if until is not None:
            yield do.ForgetNonces(until)

    def relieve(self, now: Now, online: bool) -> Effects:
        """Forget the oldest commands at once where there are too many, before the birth is announced too."""
        if online and self._book.crowded:
            yield from self._tidy_book(now, online)

    def _tidy_book(self, now: Now, online: bool) -> Effects:
        """Of what was signed the nonces are kept until they have expired."""
        for effect in self._book.tidy(self._topics, now, online):
            if isinstance(effect, do.Forget):
                yield do.Forget(effect.command, self._trust.retire(effect.command))
            else:
                yield effect

    def _last_result(self, command: Command) -> Effect:
        return announce.twin(self._identity, "last_result", announce.last_result(command))
