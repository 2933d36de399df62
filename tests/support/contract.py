"""Holds what is really published against the contract: no field too few, none too many, none of another type."""

from __future__ import annotations

import re
from functools import cache
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from reconvene_agent.cli.contract import catalogue
from reconvene_agent.cli.contract.catalogue import Channel
from reconvene_agent.core.contract.results import RESULTS
from reconvene_agent.core.job import AGENT_FIELDS, Command
from reconvene_agent.core.messages import OPERATIONS
from reconvene_agent.core.protocol import Done, Failed, Happening, Upward
from reconvene_agent.core.topics import Topics
from reconvene_agent.daemon.effects import Effect, Publish, Record
from reconvene_agent.daemon.reporting import reports

E = TypeVar("E", bound=Effect)

ADD = "declare it (core/contract, core/topics.py), give it an example (cli/contract/examples.py), run '.ci/asyncapi.py --write'"


# Home Assistant's own formats, which tests/daemon/reporting/test_homeassistant.py holds.
_FOREIGN = re.compile("/device/[^/]+/config$|/ha/")


class Contract:
    """The channels of one agent. ``results`` says whether results of jobs count too: stand-ins of workers make up their own."""

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

    def check(self, topic: str, payload: bytes, retain: bool | None = None) -> Channel:
        """Hold one message that the agent has published against the contract; return its channel.

        ``retain`` is left out where it cannot be told: a live subscriber does not see it.
        """
        channel = self.channel_of(topic)
        # A refusal under an id that is in use passes by, and the first command's state stays.
        refused = channel.name.startswith("command") and b'"failed"' in payload
        assert retain in (None, channel.retained) or refused, f"{topic}: the contract says retained: {channel.retained}"
        kinds = [message.type for message in channel.sent]
        if not payload:
            assert None in kinds, f"{topic}: the contract knows no empty payload here"
            return channel
        document = msgspec.json.decode(payload)
        if channel.name.startswith("command"):
            document = self._of_the_agent(document, channel)
        found = [difference_from(kind, document) for kind in kinds if kind is not None]
        assert None in found, f"{topic} does not hold what the contract says: {' | '.join(map(str, found))}; {ADD}"
        return channel

    def effects(self, effects: list[E]) -> list[E]:
        """Check all that these effects publish now or through the spool, which numbers it; return them."""
        for effect in effects:
            if isinstance(effect, Publish) and not _FOREIGN.search(effect.topic):
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


def check_word(message: Upward, op: str) -> None:
    """Hold what a real worker says while it does ``op`` against what the fleet would hear of it."""
    if isinstance(message, Happening):
        _EXACT.effects(reports.records(_TOPICS, Command("specialize", "1", {}, "", 0.0, 0.0), message, 0.0))
    elif isinstance(message, (Done, Failed)) and message.result is not None and op in RESULTS:
        found = difference_from(RESULTS[op], message.result)
        assert found is None, f"the result of {op} is not what the contract says: {found}; {ADD}"


@cache
def _channels() -> tuple[Channel, ...]:
    return tuple(catalogue.channels())


def _pattern(address: str, values: dict[str, str]) -> str:
    """Return the expression that matches the topics of an address; a parameter without a value may be any level."""
    for name, value in values.items():
        address = address.replace(f"{{{name}}}", value)
    return "[^/]+".join(re.escape(part) for part in re.split(r"\{\w+\}", address))


def difference_from(kind: type[Struct], document: Any) -> str | None:
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


_TOPICS = Topics("te", "board-1")
_EXACT = Contract(_TOPICS)
