"""What the agent tells the fleet about itself: registration, health, capabilities, and the twin of the board."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from reconvene_agent.core import messages
from reconvene_agent.core.clock import rfc3339
from reconvene_agent.core.device import Device
from reconvene_agent.core.job import Command, payload
from reconvene_agent.core.release import Release
from reconvene_agent.core.topics import Topics
from reconvene_agent.daemon.effects import Publish
from reconvene_agent.daemon.identity import Identity


def up(identity: Identity, state: str, wall: float) -> Publish:
    """Return the retained message that says the agent is up."""
    document = {
        "status": "up",
        "pid": identity.pid,
        "time": rfc3339(wall),
        "session": identity.session,
        "boot_id": identity.boot_id,
        "version": identity.version,
        "state": state,
    }
    return Publish(identity.topics.health, msgspec.json.encode(document))


def down(identity: Identity) -> bytes:
    """Return the payload of the last will, which an orderly stop publishes too."""
    return msgspec.json.encode({"status": "down", "session": identity.session})


def birth(identity: Identity) -> Iterator[Publish]:
    """Return what is announced on every connection and never changes: the capabilities. The registration was before."""
    for op in messages.OPERATIONS:
        yield Publish(identity.topics.capability(op), messages.capability(op))


def state(topics: Topics, command: Command) -> Publish:
    """Return a command's state; that the broker has its end comes back as an event."""
    token = command.label if command.status.terminal else ""
    return Publish(topics.command(command.op, command.id), payload(command), token=token)


def twin(identity: Identity, name: str, document: dict[str, Any]) -> Publish:
    """Return one part of the board's twin."""
    return Publish(identity.topics.twin(name), msgspec.json.encode(document))


def hardware(device: Device) -> dict[str, Any]:
    """Return what the board is, without the figures that change all the time."""
    facts: dict[str, Any] = msgspec.to_builtins(device)
    for changing in ("temperature_c", "power", "clock_synchronized"):
        del facts[changing]
    facts["memory"] = {"total_mb": device.memory.total_mb, "limited_by": device.memory.limited_by}
    facts["storage"] = {"path": device.storage.path, "total_mb": device.storage.total_mb}
    return facts


def model(release: Release) -> dict[str, Any]:
    """Return what is deployed."""
    return {
        "version": release.version,
        "architecture": release.model.architecture,
        "bundle": release.bundle,
        "sparsity": release.sparsity,
        "precision": release.precision,
        "bytes": release.onnx_bytes,
        "sha256": release.onnx_sha256,
        "params": release.params,
        "macs": release.macs,
        "accuracy": release.accuracy,
        "latency_ms": {"p50": release.latency_ms.p50, "p95": release.latency_ms.p95},
        "created": release.created,
    }


def last_result(command: Command) -> dict[str, Any]:
    """Return how the last job ended."""
    document: dict[str, Any] = {
        "op": command.op,
        "id": command.id,
        "status": command.status.value,
        "finished_at": rfc3339(command.updated_at),
    }
    if command.error is not None:
        document["error"] = msgspec.to_builtins(command.error)
    return document
