"""Holds what is really published against the contract: no field too few, none too many, none of another type."""

from __future__ import annotations

import re
from functools import cache
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from reconvene_agent.cli.contract import catalogue
from reconvene_agent.cli.contract.catalogue import Channel
from reconvene_agent.core.job import AGENT_FIELDS
from reconvene_agent.core.messages import OPERATIONS
from reconvene_agent.core.topics import Topics
from reconvene_agent.daemon.effects import Effect, Publish, Record

E = TypeVar("E", bound=Effect)

ADD = "declare it (core/contract, core/topics.py), give it an example (cli/contract/examples.py), run '.ci/asyncapi.py --write'"


class Contract:
    """The channels of one agent. ``results`` says whether results of jobs count too: stand-ins of the worker make up their own."""

    def __init__(self, topics: Topics, results: bool = True) -> None:
        self._results = results
        values = {"root": topics.root, "device_id": topics.device}
        self._channels = [(re.compile(_pattern(channel.address, values)), channel) for channel in _channels()]

    def channel_of(self, topic: str) -> Channel:
        """Return the channel of a topic; it is a failure if there is none."""
        for pattern, channel in self._channels:
            if pattern.fullmatch(topic):
                return channel
        raise AssertionError(f"{topic} is no channel of the contract: {ADD}")

    def check(self, topic: str, payload: bytes, retain: bool) -> Channel:
        """Hold one message that the agent has published against the contract; return its channel."""
        channel = self.channel_of(topic)
        # A refusal under an id that is in use passes by, and the first command's state stays.
        refused = channel.name.startswith("command") and b'"failed"' in payload
        assert retain == channel.retained or refused, f"{topic}: the contract says retained: {channel.retained}"
        kinds = [message.type for message in channel.sent]
        if not payload:
            assert None in kinds, f"{topic}: the contract knows no empty payload here"
            return channel
        document = msgspec.json.decode(payload)
        if channel.name.startswith("command"):
            document = self._of_the_agent(document, channel)
        found = [_difference(kind, document) for kind in kinds if kind is not None]
        assert None in found, f"{topic} does not hold what the contract says: {' | '.join(map(str, found))}; {ADD}"
        return channel

    def effects(self, effects: list[E]) -> list[E]:
        """Check all that these effects publish now or through the spool, which numbers it; return them."""
        for effect in effects:
            if isinstance(effect, Publish):
                self.check(effect.topic, effect.payload, effect.retain)
            elif isinstance(effect, Record):
                numbered = {**effect.document, "boot_id": "boot-1", "seq": 1}
                self.check(effect.topic, msgspec.json.encode(numbered), retain=False)
        return effects

    def _of_the_agent(self, document: dict[str, Any], channel: Channel) -> dict[str, Any]:
        """Return the agent's part of a command's state; the controller's may be anything."""
        own = {name: value for name, value in document.items() if name in AGENT_FIELDS}
        operation = OPERATIONS.get(channel.name.removeprefix("command_"))
        if operation is not None and operation.is_job and not self._results:
            own.pop("result", None)
        return own


@cache
def _channels() -> tuple[Channel, ...]:
    return tuple(catalogue.channels())


def _pattern(address: str, values: dict[str, str]) -> str:
    parts = re.split(r"(\{\w+\})", address)
    return "".join(
        re.escape(values[part[1:-1]]) if part[1:-1] in values else "[^/]+" if part[:1] == "{" else part for part in parts
    )


def _difference(kind: type[Struct], document: Any) -> str | None:
    """Return how a document differs from a type, or None where it does not."""
    try:
        read = msgspec.json.decode(msgspec.json.encode(msgspec.convert(document, kind)))
    except msgspec.ValidationError as error:
        return f"{kind.__name__}: {error}"
    return None if read == document else f"{kind.__name__}: {_unknown(document, read)}"


def _unknown(said: Any, read: Any, where: str = "$") -> str:
    """Return where a document holds what its type does not know."""
    if isinstance(said, dict) and isinstance(read, dict):
        for name in said:
            if name not in read:
                return f"`{where}.{name}` is not declared"
            if said[name] != read[name]:
                return _unknown(said[name], read[name], f"{where}.{name}")
        return f"`{where}` lacks {sorted(set(read) - set(said))}"
    if isinstance(said, list) and isinstance(read, list):
        for index, (one, other) in enumerate(zip(said, read, strict=False)):
            if one != other:
                return _unknown(one, other, f"{where}[{index}]")
    return f"`{where}` is {said!r} and is read as {read!r}"
