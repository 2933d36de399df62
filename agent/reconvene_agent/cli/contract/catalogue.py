"""Every channel of one agent, and the type of every message on it. Operations, events and alarms are those that the agent has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import msgspec
from msgspec import NODEFAULT, UNSET, Struct, UnsetType

from reconvene_agent.core.budget import BudgetLimits
from reconvene_agent.core.config import Config
from reconvene_agent.core.contract import announced, records, results
from reconvene_agent.core.job import State
from reconvene_agent.core.messages import OPERATIONS, Request
from reconvene_agent.core.topics import Topics
from reconvene_agent.daemon.reporting.alarms import NAMES as ALARMS
from reconvene_agent.daemon.reporting.alarms import Alarm

_SETTINGS = """The settings, without secrets.

    Attributes:
        updated: the names of those that commands have changed, such as ``budget.latency_ms``.
    """

PATTERN = Topics("{root}", "{device_id}")
"""The topics with the names of their parameters in the place of values."""

SECRETS = {"password_file"}
"""Settings that name files with secrets: of them is only told whether they are set."""


class Message(Struct, frozen=True):
    """One message: its name, and the type of its payload, or None when that is empty; ``summary`` is one line."""

    name: str
    type: type[Struct] | None
    summary: str


class Channel(Struct, frozen=True):
    """One topic, or a family of them.

    Attributes:
        address: the topic; what varies stands in braces.
        sent: the messages that the agent publishes.
        received: those that it listens to.
        retained: whether the broker keeps the last message.
    """

    name: str
    address: str
    summary: str
    sent: tuple[Message, ...]
    received: tuple[Message, ...] = ()
    retained: bool = True


CLEARED = Message("Cleared", None, "An empty payload: the broker forgets what it has retained on this topic.")


def message(kind: type[Struct]) -> Message:
    """Return the message that is named after its type."""
    return Message(kind.__name__, kind, summary_of(kind))


def summary_of(kind: type[Struct]) -> str:
    """Return the first line of what is said of a type."""
    return (kind.__doc__ or "").partition("\n")[0].replace("``", "`")


def channels() -> Iterator[Channel]:
    """Yield every channel; one with a fixed name stands before the family that it would belong to."""
    yield Channel("registration", PATTERN.service, "The service on a thin-edge bus.", (message(announced.Registration),))
    health = (message(announced.Up), message(announced.Down))
    summary = (
        "Whether the agent is up. The last will is published here too; when it is not the agent's own, it says that it is up."
    )
    yield Channel("health", PATTERN.health, summary, health, health)
    yield from _twin()
    for name, kind in records.MEASUREMENTS.items():
        found = message(kind)
        yield Channel(f"measurement_{name}", PATTERN.measurement(name), found.summary, (found,), retained=False)
    for event, kinds in records.EVENTS.items():
        sent = tuple(map(message, kinds))
        yield Channel(f"event_{event}", PATTERN.event(event), sent[0].summary, sent, retained=False)
    for alarm in ALARMS:
        summary = f"The alarm {alarm}, as long as it stands."
        yield Channel(f"alarm_{alarm}", PATTERN.alarm(alarm), summary, (message(Alarm), CLEARED))
    summary = "An operation that exists."
    yield Channel("capability", PATTERN.capability("{op}"), summary, (message(announced.Capability),))
    for op in OPERATIONS:
        sent, received = (message(state_of(op)), CLEARED), (message(request_of(op)), CLEARED)
        yield Channel(f"command_{op}", PATTERN.command(op, "{cmd_id}"), OPERATIONS[op].description, sent, received)
    summary = "A command of an operation that this agent does not have; it fails with UNSUPPORTED."
    sent, received = (message(State), CLEARED), (message(_any_request()), CLEARED)
    yield Channel("command", PATTERN.command("{op}", "{cmd_id}"), summary, sent, received)


def _twin() -> Iterator[Channel]:
    hardware, model, last = (message(kind) for kind in (announced.Hardware, announced.Model, announced.LastResult))
    yield Channel("twin_hardware", PATTERN.twin("hardware"), hardware.summary, (hardware,))
    yield Channel("twin_model", PATTERN.twin("model"), "What is deployed; empty when nothing is.", (model, CLEARED))
    yield Channel("twin_last_result", PATTERN.twin("last_result"), last.summary, (last,))
    config = message(told_config())
    yield Channel("twin_config", PATTERN.twin("config"), config.summary, (config,))


def messages() -> dict[str, Message]:
    """Return every message by name, in the order of the channels."""
    return {each.name: each for channel in channels() for each in (*channel.received, *channel.sent)}


def outgoing() -> list[type[Struct]]:
    """Return the types of everything that the agent publishes."""
    found = {each.name: each.type for channel in channels() for each in channel.sent if each.type is not None}
    return list(found.values())


def incoming() -> list[type[Struct]]:
    """Return the types of everything that only controllers publish."""
    found = {each.name: each.type for channel in channels() for each in channel.received if each.type is not None}
    theirs = [kind for name, kind in found.items() if name not in ("Up", "Down")]
    return theirs + [operation.args for operation in OPERATIONS.values()]


_MADE: dict[str, type[Struct]] = {}


def _once(name: str, fields: list[Any], doc: str, bases: tuple[type[Struct], ...] = ()) -> type[Struct]:
    """Return the one type of this name."""
    if name not in _MADE:
        _MADE[name] = msgspec.defstruct(name, fields, bases=bases, namespace={"__doc__": doc}, frozen=True, kw_only=True)
    return _MADE[name]


def _any_request() -> type[Struct]:
    return _once("Request", [("status", Literal["init"])], Request.__doc__ or "", (Request,))


def request_of(op: str) -> type[Struct]:
    """Return the type of a request for one operation."""
    args = OPERATIONS[op].args
    needed = any(field.required for field in msgspec.structs.fields(args))
    given = ("args", args) if needed else ("args", args | UnsetType, UNSET)
    fields = [("status", Literal["init"]), given]
    return _once(f"{_title(op)}Request", fields, f"Asks for ``{op}``.\n\n{_attributes(Request)}", (Request,))


def state_of(op: str) -> type[Struct]:
    """Return the type of the states of one operation's commands.

    Raises:
        LookupError: its result has no type.
    """
    if op not in results.RESULTS:
        raise LookupError(f"the operation {op!r} has no type of its result: add it to RESULTS in core/contract/results.py")
    fields = [("result", results.RESULTS[op] | UnsetType, UNSET)]
    return _once(f"{_title(op)}State", fields, f"The state of a command ``{op}``.{_rest(State)}", (State,))


def told_config() -> type[Struct]:
    """Return the type of the settings without secrets, all of which are told, but for limits that nobody has set."""
    sections = [(section.name, _told_section(section.name, section.type)) for section in msgspec.structs.fields(Config)]
    updated = ("updated", tuple[str, ...])
    return _once("Settings", [*sections, updated], _SETTINGS)


def _told_section(name: str, kind: type[Struct]) -> type[Struct]:
    fields: list[Any] = []
    for field in msgspec.structs.fields(kind):
        told = bool if field.name in SECRETS else field.type
        fields.append((field.name, told, UNSET) if kind is BudgetLimits else (field.name, told))
        assert field.default is not NODEFAULT or field.default_factory is not NODEFAULT
    return _once(f"{_title(name)}Settings", fields, kind.__doc__ or "")


def _title(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))


def _attributes(kind: type[Struct]) -> str:
    return "Attributes:" + (kind.__doc__ or "").partition("Attributes:")[2]


def _rest(kind: type[Struct]) -> str:
    """Return what is said of a type after its first sentence."""
    return (kind.__doc__ or "").partition(".")[2]
