"""Home Assistant: the agent as one device with sensors and buttons, by MQTT discovery (docs/integrations.md). Pure.

Loaded only when discovery is on, or was on and has to be cleared.

A button publishes one fixed topic, so it cannot name a new command each time. Its payload is the time of the press, and the
agent makes a command of it whose id follows from that time: a press that arrives twice is one command, and one that arrives
late expires. The command then goes the way of every other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any

import msgspec
from msgspec import Struct

from reconvene_agent.core import clock
from reconvene_agent.core.clock import Now, rfc3339
from reconvene_agent.core.config import Config
from reconvene_agent.core.errors import UsageError
from reconvene_agent.core.job import Command, digest_of
from reconvene_agent.core.messages import decode_object
from reconvene_agent.core.topics import SERVICE, CommandTopic, Topics
from reconvene_agent.daemon import effects as do
from reconvene_agent.daemon.effects import Effect
from reconvene_agent.daemon.events import Received
from reconvene_agent.daemon.reporting.identity import Identity

REQUESTER = "homeassistant"
PRESS_VALID_S = 300.0
SPREAD_S = 10.0
"""Within what time after Home Assistant's birth the device is announced again; a whole fleet at once is too much for it."""

BUTTONS = {"specialize": "Specialise", "rollback": "Roll back"}
PRESS_TEMPLATE = '{"time": "{{ utcnow().isoformat() }}"}'
_MARK = "homeassistant "

Effects = Iterator[Effect]
Receive = Callable[[Received, CommandTopic, Now], Effects]


class HomeAssistant:
    """What one Home Assistant sees of the agent.

    Args:
        held: topics that the broker may hold from earlier.
        board: the board's name.
        buttons: whether presses may become commands; they carry no signature.
        spread: returns a share from 0 to 1 of ``SPREAD_S``, drawn anew for each birth.
    """

    def __init__(
        self, identity: Identity, config: Config, held: tuple[str, ...], board: str, buttons: bool, spread: Callable[[], float]
    ) -> None:
        self._topics = identity.topics
        self._spread = spread
        self._birth = f"{config.homeassistant.prefix}/status"
        self._state = f"{self._topics.service}/ha/state"
        node = _node(self._topics)
        self._config = f"{config.homeassistant.prefix}/device/{node}/config"
        self._on = config.homeassistant.discovery
        offered = [op for op in BUTTONS if op != "specialize" or (config.specialize.bundle and config.specialize.data)]
        self._buttons = {f"{self._topics.service}/ha/{op}": op for op in offered} if self._on and buttons else {}
        self._document = device(identity, node, board, tuple(self._buttons.values()), config.telemetry.interval_s)
        wanted = (self._config, self._state) if self._on else ()
        self._leaving = set(held) - set(wanted)
        self._held, self._noted = wanted, held
        self._told: bytes | None = None
        self.due: float | None = None
        """When the device is to be announced again, on the monotonic clock."""

    @property
    def filters(self) -> tuple[str, ...]:
        """What the agent subscribes to for Home Assistant's sake."""
        return (self._birth, *self._buttons) if self._on else ()

    def announce(self) -> Effects:
        """Announce the device to a broker that has just been connected to, and clear what must no longer be there."""
        self._told = None
        yield from self._note()
        for topic in sorted(self._leaving):
            yield do.Publish(topic, b"", token=_MARK + topic)
        if self._on:
            yield self._announcement()

    def step(self, state: str, job: Command | None, now: Now) -> Effects:
        """Tell what the agent does if that is news, and announce the device again if that is due."""
        if not self._on:
            return
        if self.due is not None and now.mono >= self.due:
            self.due = None
            yield self._announcement()
        told = msgspec.json.encode(doing(state, job))
        if told != self._told:
            self._told = told
            yield do.Publish(self._state, told)

    def received(self, event: Received, receive: Receive, now: Now) -> Effects:
        """Take in a message on one of the ``filters``; ``receive`` takes in commands."""
        if event.topic == self._birth:
            if event.payload == b"online" and self.due is None:
                self.due = now.mono + SPREAD_S * self._spread()
            return
        op = self._buttons[event.topic]
        try:
            pressed = clock.wall_seconds(decode_object(event.payload or b"")["time"])
            request = press(pressed)
        except (UsageError, msgspec.ValidationError, KeyError, TypeError, ValueError, OverflowError, OSError):
            yield do.Log("warning", f"a message on {event.topic} is no press of a button: it has no time")
            return
        payload = msgspec.json.encode(request)
        topic = CommandTopic(op, f"ha-{digest_of(request)[:12]}")
        yield from receive(Received(self._topics.command(topic.op, topic.id), payload, len(payload)), topic, now)

    def acknowledged(self, token: str) -> Effects:
        """Note what the broker no longer holds."""
        topic = token.removeprefix(_MARK)
        if token != topic and topic in self._leaving:
            self._leaving.remove(topic)
            yield from self._note()

    def _announcement(self) -> Effect:
        return do.Publish(self._config, msgspec.json.encode(self._document))

    def _note(self) -> Effects:
        topics = (*self._held, *sorted(self._leaving))
        if topics != self._noted:
            self._noted = topics
            yield do.KeepDiscovered(topics)


def press(pressed: float) -> dict[str, Any]:
    """Return the command that a press of a button at this time means; nothing else than the time makes it another one.

    Raises:
        ValueError, OverflowError, OSError: it is no time.
    """
    times = {"issued_at": rfc3339(pressed), "expires_at": rfc3339(pressed + PRESS_VALID_S)}
    return {"status": "init", "args": {}, **times, "requester": REQUESTER}


def doing(state: str, job: Command | None) -> dict[str, Any]:
    """Return what the agent does, with whole percents so that few messages tell it."""
    step = job.step.value if job is not None and job.step is not None else "none"
    return {"state": state, "step": step, "progress": None if job is None else int(100 * job.progress)}


class _Sensor(Struct, frozen=True):
    """One figure: its name, where it is read, how, and in which unit; ``kind`` is Home Assistant's device class."""

    name: str
    topic: str
    template: str
    unit: str = ""
    kind: str = ""
    diagnostic: bool = False


def device(identity: Identity, node: str, board: str, buttons: tuple[str, ...], interval_s: float) -> dict[str, Any]:
    """Return the discovery document. Board figures are unknown again when three intervals have passed without one."""
    topics = identity.topics
    components: dict[str, Any] = {}
    for key, sensor in _sensors(topics).items():
        component: dict[str, Any] = {
            "platform": "sensor",
            "unique_id": f"{node}_{key}",
            "name": sensor.name,
            "state_topic": sensor.topic,
            "value_template": sensor.template,
        }
        if sensor.unit:
            component |= {"unit_of_measurement": sensor.unit, "state_class": "measurement"}
        if sensor.kind:
            component["device_class"] = sensor.kind
        if sensor.diagnostic:
            component |= {"entity_category": "diagnostic", "expire_after": round(3 * interval_s)}
        components[key] = component
    for op in buttons:
        components[f"{op}_button"] = {
            "platform": "button",
            "unique_id": f"{node}_{op}_button",
            "name": BUTTONS[op],
            "command_topic": f"{topics.service}/ha/{op}",
            "command_template": PRESS_TEMPLATE,
            "qos": 0,  # now or never: nothing of it shall wait for a board that is away
            "retain": False,
        }
    return {
        "device": {
            "identifiers": [node],
            "name": topics.device,
            "sw_version": identity.version,
            **({"model": board} if board else {}),
        },
        "origin": {"name": SERVICE, "sw_version": identity.version},
        "availability_topic": topics.health,
        "availability_template": "{{ 'online' if value_json.status == 'up' else 'offline' }}",
        "components": components,
    }


def _sensors(topics: Topics) -> dict[str, _Sensor]:
    state, model, board = f"{topics.service}/ha/state", topics.twin("model"), topics.measurement("system")
    return {
        "state": _Sensor("State", state, "{{ value_json.state }}"),
        "step": _Sensor("Step", state, "{{ value_json.step }}"),
        "progress": _Sensor("Progress", state, "{{ value_json.progress }}", "%"),
        "accuracy": _Sensor("Accuracy", model, _of_model("accuracy", "(value_json.accuracy * 100) | round(2)"), "%"),
        "latency": _Sensor("Latency", model, _of_model("latency_ms", "value_json.latency_ms.p50 | round(4)"), "ms", "duration"),
        "sparsity": _Sensor("Sparsity", model, _of_model("sparsity", "(value_json.sparsity * 100) | round(2)"), "%"),
        "model_size": _Sensor("Model size", model, _of_model("bytes", "value_json.bytes"), "B", "data_size"),
        "temperature": _Sensor("Temperature", board, _of_board("temperature_c"), "°C", "temperature", True),
        "memory": _Sensor("Memory available", board, _of_board("memory_available_mb"), "MiB", "data_size", True),
    }


def _of_model(name: str, value: str) -> str:
    """Return a template that renders ``None``, which is unknown, where no model is deployed or it has no such figure."""
    return f"{{{{ {value} if value_json is defined and value_json.{name} is not none else None }}}}"


def _of_board(name: str) -> str:
    return f"{{{{ value_json.{name} | default(None) }}}}"


def _node(topics: Topics) -> str:
    """Return the device's name in Home Assistant's topics, of letters, digits, ``_`` and ``-``; unique on the broker."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", topics.device) + "-" + sha256(topics.service.encode()).hexdigest()[:8]
