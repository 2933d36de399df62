"""The picture of a fleet, drawn from what its devices say. Pure: messages in, with the time they came at; rows out."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from reconvene_agent.cli.fleet import said
from reconvene_agent.core.clock import rfc3339
from reconvene_agent.core.job import Status
from reconvene_agent.core.topics import Topics, of_any_device, valid_segment

MAX_ALARMS = 16


class Job(Struct, frozen=True):
    """The command that a device is executing."""

    op: str
    id: str
    step: str
    progress: float | None


class Model(Struct, frozen=True):
    """The model that a device has deployed; None is what it does not tell."""

    version: str
    accuracy: float | None
    latency_ms_p50: float | None
    latency_ms_p95: float | None
    bytes: float | None
    sparsity: float | None


class Device(Struct):
    """One device.

    Attributes:
        up: what its health says; None when it has none.
        seen: when it last said anything, in seconds since the epoch; by its own word where that was retained.
    """

    name: str
    up: bool | None = None
    state: str = ""
    version: str = ""
    job: Job | None = None
    model: Model | None = None
    alarms: dict[str, str] = {}
    seen: float | None = None

    @property
    def word(self) -> str:
        """The one word for how it fares."""
        if self.up is None:
            return "?"
        return self.state or "up" if self.up else "down"

    @property
    def work(self) -> Job | None:
        """The job, unless the device itself says that it does nothing."""
        return self.job if self.up and self.state != "idle" else None


class Picture:
    """All devices that were heard of below ``root``."""

    def __init__(self, root: str) -> None:
        self._root = root
        self.devices: dict[str, Device] = {}
        self.senseless = 0
        """How many messages made no sense."""

    def take(self, topic: str, payload: bytes | None, size: int, now: float, live: bool) -> None:
        """Take in a message; ``live`` if it is surely said now, and not retained from before."""
        found = of_any_device(self._root, topic)
        if found is None or not found[1]:
            return  # not one of ours, or the registration, which says nothing new
        name, rest = found
        parts = rest.split("/")
        document: dict[str, Any] | None = {} if size == 0 else said.document(payload)
        if document is None or not all(map(valid_segment, parts)):
            self.senseless += 1
            return
        if parts == ["status", "health"] and size == 0:
            self.devices.pop(name, None)  # somebody has removed it from the fleet
            return
        command = parts[0] == "cmd" and len(parts) == 3
        if (size == 0 and name not in self.devices) or (command and size and said.answer(document) is None):
            return  # not the device's own word
        device = self.devices.setdefault(name, Device(name))
        if parts == ["status", "health"]:
            _health(device, document)
        elif parts == ["twin", "model"]:
            device.model = _model(document)
        elif parts[0] == "a" and len(parts) == 2:
            _alarm(device, parts[1], document)
        elif command:
            _job(device, parts[1], parts[2], document)
        own = max((said.moment(document, key) or 0.0 for key in ("time", "updated_at")), default=0.0)
        heard = now if live else min(own, now)
        if heard and document.get("status") != "down":
            device.seen = max(heard, device.seen or 0.0)

    def summary(self) -> dict[str, int]:
        """Return how many devices there are, up, down, and busy."""
        devices = self.devices.values()
        return {
            "devices": len(devices),
            "up": sum(device.up is True for device in devices),
            "down": sum(device.up is False for device in devices),
            "busy": sum(device.work is not None for device in devices),
        }

    def by_name(self) -> list[Device]:
        """Return the devices by name."""
        return [self.devices[name] for name in sorted(self.devices)]

    def by_interest(self) -> list[Device]:
        """Return the devices, those first that work or are in trouble."""
        return sorted(self.devices.values(), key=lambda each: (each.work is None, not each.alarms, each.up is True, each.name))


def subscriptions(root: str) -> tuple[str, ...]:
    """Return the filters that a picture needs: one each, however many devices there are."""
    anybody = Topics(root, "+")
    return (anybody.health, anybody.twin("model"), anybody.alarm("+"), anybody.commands, anybody.measurement("system"))


def row(device: Device, now: float) -> tuple[str, ...]:
    """Return a device's row of the table."""
    job, model = device.work, device.model
    return (
        device.name,
        device.word,
        job.step if job else "",
        f"{job.progress:.0%}" if job and job.progress is not None else "",
        model.version if model else "",
        f"{model.accuracy:.1%}" if model and model.accuracy is not None else "",
        f"{model.latency_ms_p95:.2f}" if model and model.latency_ms_p95 is not None else "",
        "" if device.seen is None else ago(now - device.seen),
        ", ".join(sorted(device.alarms)),
    )


HEADINGS = ("device", "state", "step", "done", "model", "accuracy", "p95 ms", "last seen", "alarms")
LEFT = ("device", "state", "step", "model", "last seen", "alarms")


def entry(device: Device) -> dict[str, Any]:
    """Return a device as a document."""
    job, model = device.work, device.model
    return {
        "device": device.name,
        "up": device.up,
        "state": device.word,
        "version": device.version or None,
        "job": None if job is None else {name: getattr(job, name) for name in job.__struct_fields__},
        "model": None if model is None else {name: getattr(model, name) for name in model.__struct_fields__},
        "alarms": device.alarms,
        "last_seen": None if device.seen is None else rfc3339(device.seen),
    }


def ago(seconds: float) -> str:
    """Write how long ago something was."""
    for unit, length in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{max(0.0, seconds):.0f} s ago"


def _health(device: Device, document: dict[str, Any]) -> None:
    device.up = document.get("status") == "up"
    device.state = said.text(document, "state", 20)
    device.version = said.text(document, "version", 20) or device.version


def _model(document: dict[str, Any]) -> Model | None:
    version = said.text(document, "version", 32)
    if not version:
        return None
    latency = document.get("latency_ms")
    times = latency if isinstance(latency, dict) else {}
    return Model(
        version,
        said.number(document, "accuracy", 0.0, 1.0),
        said.number(times, "p50", 0.0),
        said.number(times, "p95", 0.0),
        said.number(document, "bytes", 0.0),
        said.number(document, "sparsity", 0.0, 1.0),
    )


def _alarm(device: Device, name: str, document: dict[str, Any]) -> None:
    others = {other: text for other, text in device.alarms.items() if other != name}
    if document and len(others) < MAX_ALARMS:
        others[name] = said.text(document, "text")
    device.alarms = others


def _job(device: Device, op: str, command_id: str, document: dict[str, Any]) -> None:
    """Take in a command's state: a device executes one job at a time, so the one told last is the one."""
    told = said.answer(document)
    if told is not None and told.status is Status.EXECUTING:
        device.job = Job(op, command_id, told.step, told.progress)
    elif device.job is not None and (device.job.op, device.job.id) == (op, command_id):
        device.job = None
