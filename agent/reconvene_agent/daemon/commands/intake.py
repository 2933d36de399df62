"""What becomes of a message on a command topic: nothing, an answer, or a new command. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from reconvene_agent.core import clock, messages
from reconvene_agent.core.clock import Now
from reconvene_agent.core.errors import AgentError, ErrorCode, UsageError
from reconvene_agent.core.job import Command, Status, digest_of, payload
from reconvene_agent.core.messages import MAX_PAYLOAD, Args, Envelope
from reconvene_agent.core.topics import CommandTopic
from reconvene_agent.daemon.commands.book import CLEAR_AFTER_S
from reconvene_agent.daemon.commands.running import failed
from reconvene_agent.daemon.events import Received

MAX_REV = 2**53 - 1
"""The largest whole number that every JSON reader keeps exactly."""


MAX_DETAIL = 500
"""Characters of a refusal: it may quote what was sent."""


class Echo(Struct, frozen=True):
    """A message of our own, or one that changes nothing. ``rev`` is the newest revision the broker holds."""

    rev: int = 0


class Cleared(Struct, frozen=True):
    """The retained message was removed."""


class Repeated(Struct, frozen=True):
    """The same command once more: its state is to be published again."""


class Refused(Struct, frozen=True):
    """A command that never becomes one; ``command`` is its failed state. ``reused`` if another one has the same id."""

    command: Command
    reused: bool = False


class Orphan(Struct, frozen=True):
    """A state of ours that is not in the journal and not terminal: its ``command`` has been interrupted."""

    command: Command


class Stale(Struct, frozen=True):
    """An end of ours that counts as cleared, or that is more than a day old and in no journal any more."""


class Accepted(Struct, frozen=True):
    """A new command with valid arguments, not journaled yet."""

    command: Command
    envelope: Envelope
    args: Args


Intake = Echo | Cleared | Repeated | Refused | Orphan | Stale | Accepted


def sort_message(
    event: Received,
    topic: CommandTopic,
    known: Command | None,
    now: Now,
    defaults: dict[str, Any],
    trust: Callable[[dict[str, Any]], None],
) -> Intake:
    """Return what a message on a command's topic means.

    ``known`` is the command already under that id; ``trust`` raises a UsageError for a new request that is not believed.
    """
    if event.size == 0:
        return Cleared()
    if event.payload is None:
        if known is not None and len(payload(known)) > MAX_PAYLOAD:
            return Echo()  # our own state, which the controller's many fields made too large; an answer would be one more
        detail = f"the payload has {event.size} bytes; at most {MAX_PAYLOAD} are accepted"
        return Refused(_refusal(topic, {}, UsageError(detail), now), reused=known is not None)
    try:
        message = messages.decode_object(event.payload)
    except AgentError as error:
        return Refused(_refusal(topic, {}, error, now), reused=known is not None)
    request = messages.request_of(message)
    if isinstance(message.get("rev"), int):
        return _own(topic, message, request, known, now)
    if known is not None:
        if digest_of(request) == known.digest:
            return Repeated()
        detail = f"{known.label} was already used for another command"
        return Refused(_refusal(topic, request, UsageError(detail, ErrorCode.ID_REUSED), now), reused=True)
    try:
        trust(request)
        envelope = messages.decode_envelope(message)
        args = messages.decode_args(topic.op, envelope.args, defaults)
        if envelope.expires_at is not None and now.synchronized and envelope.expires_at <= now.wall:
            raise UsageError("the command expired before it arrived", ErrorCode.EXPIRED)
    except AgentError as error:
        return Refused(_refusal(topic, request, error, now))
    return Accepted(_new(topic, request, now), envelope, args)


def _own(
    topic: CommandTopic, message: dict[str, Any], request: dict[str, Any], known: Command | None, now: Now
) -> Echo | Orphan | Stale:
    rev = min(max(int(message["rev"]), 0), MAX_REV)
    terminal = message.get("status") in (Status.SUCCESSFUL.value, Status.FAILED.value)
    if terminal and (_old(message, now) if known is None else known.cleared):
        return Stale()
    if known is not None or terminal:
        return Echo(rev)
    command = Command(topic.op, topic.id, request, digest_of(request), now.wall, now.wall, rev=rev)
    detail = "the agent lost this command's state and cannot go on with it: send it again under a new id"
    return Orphan(failed(command, ErrorCode.INTERRUPTED, detail, now))


def _old(message: dict[str, Any], now: Now) -> bool:
    """Whether a state is more than a day old, as far as the clock can be believed."""
    moment = message.get("updated_at")
    try:
        return now.synchronized and isinstance(moment, str) and now.wall - clock.wall_seconds(moment) > CLEAR_AFTER_S
    except (msgspec.ValidationError, ValueError, OverflowError):
        return False


def _new(topic: CommandTopic, request: dict[str, Any], now: Now) -> Command:
    return Command(topic.op, topic.id, request, digest_of(request), received_at=now.wall, updated_at=now.wall)


def _refusal(topic: CommandTopic, request: dict[str, Any], error: AgentError, now: Now) -> Command:
    """Return a command as failed; an answer that would be too large to be read again goes without what was asked."""
    detail = error.message if len(error.message) <= MAX_DETAIL else f"{error.message[:MAX_DETAIL]}…"
    refusal = failed(_new(topic, request, now), error.code, detail, now)
    return refusal if len(payload(refusal)) <= MAX_PAYLOAD else msgspec.structs.replace(refusal, request={})
