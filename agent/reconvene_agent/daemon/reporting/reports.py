"""What a worker's events mean for the fleet: measurements, events, a new model. Pure."""

from __future__ import annotations

from typing import Any

from reconvene_agent.core.census import Census
from reconvene_agent.core.clock import rfc3339
from reconvene_agent.core.job import Command
from reconvene_agent.core.protocol import Happening
from reconvene_agent.core.topics import EventName, MeasurementName, Topics
from reconvene_agent.daemon.effects import Record

# The worker's events that the fleet hears of, and what they are called there.
_EVENTS: dict[str, EventName] = {
    "plan": "plan_chosen",
    "prune": "model_pruned",
    "epoch": "epoch",
    "release": "model_promoted",
    "refused": "release_refused",
    "warning": "warning",
}


def records(topics: Topics, command: Command, event: Happening, wall: float) -> list[Record]:
    """Return what goes into the spool for an event of the worker."""
    about = {"time": rfc3339(wall), "command": command.label}
    found: list[Record] = []
    if event.name in _EVENTS:
        found.append(Record("event", topics.event(_EVENTS[event.name]), {**about, **event.data}))
    if event.name == "epoch":
        wanted = ("epoch", "loss", "accuracy", "learning_rate")
        training: dict[str, Any] = {name: event.data[name] for name in wanted if name in event.data}
        found.append(measurement(topics, "training", training, wall))
    if event.name == "release" and isinstance(latency := event.data.get("latency_ms"), dict):
        inference = {"latency_ms_p50": latency.get("p50"), "latency_ms_p95": latency.get("p95"), "bytes": event.data.get("bytes")}
        found.append(measurement(topics, "inference", inference, wall))
    return found


def data_changed(topics: Topics, found: Census, trained: Census, command: Command, wall: float) -> Record:
    """Return the event that says why the agent starts a run by itself."""
    figures = {"files": found.files, "bytes": found.bytes, "new_share": round(found.new_since(trained), 4)}
    document = {"time": rfc3339(wall), "command": command.label, **figures}
    return Record("event", topics.event("data_changed"), document)


def event(topics: Topics, name: EventName, wall: float, **data: Any) -> Record:
    """Return one event of the agent's own."""
    return Record("event", topics.event(name), {"time": rfc3339(wall), **data})


def replanned(topics: Topics, command: Command, wall: float) -> Record:
    """Return the event that a command is planned again, within tighter limits."""
    return event(topics, "replanned", wall, command=command.label, reason=command.reason, limits_mb=command.ceilings_mb)


def measurement(topics: Topics, name: MeasurementName, figures: dict[str, Any], wall: float) -> Record:
    """Return one measurement, without the figures that are not known; the spool adds boot id and sequence number."""
    known = {figure: value for figure, value in figures.items() if value is not None}
    return Record("measurement", topics.measurement(name), {"time": rfc3339(wall), **known})
