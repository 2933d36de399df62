"""What the agent tells the fleet about itself: registration, health, capabilities, and the twin of the board."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Struct

from reconvene_agent.core import messages
from reconvene_agent.core.clock import rfc3339
from reconvene_agent.core.contract.announced import Down, Hardware, LastResult, Model, ModelLatency, Up
from reconvene_agent.core.device import Device
from reconvene_agent.core.job import Command, payload
from reconvene_agent.core.release import Release
from reconvene_agent.core.topics import Topics, TwinName
from reconvene_agent.daemon.effects import Publish
from reconvene_agent.daemon.reporting.identity import Identity


def up(identity: Identity, state: str, wall: float) -> Publish:
    """Return the retained message that says the agent is up."""
    said = Up(identity.pid, rfc3339(wall), identity.session, identity.boot_id, identity.version, state)
    return Publish(identity.topics.health, msgspec.json.encode(said))


def down(identity: Identity) -> bytes:
    """Return the payload of the last will, which an orderly stop publishes too."""
    return msgspec.json.encode(Down(identity.session))


def birth(identity: Identity) -> Iterator[Publish]:
    """Return what is announced on every connection and never changes: the capabilities. The registration was before."""
    for op in messages.OPERATIONS:
        yield Publish(identity.topics.capability(op), messages.capability(op))


def state(topics: Topics, command: Command) -> Publish:
    """Return a command's state; that the broker has its end comes back as an event."""
    token = command.label if command.status.terminal else ""
    return Publish(topics.command(command.op, command.id), payload(command), token=token)


def twin(identity: Identity, name: TwinName, document: Struct | dict[str, Any]) -> Publish:
    """Return one part of the board's twin."""
    return Publish(identity.topics.twin(name), msgspec.json.encode(document))


def hardware(device: Device) -> Hardware:
    """Return what the board is, without the figures that change all the time."""
    return msgspec.convert(device, Hardware, from_attributes=True)


def model(release: Release) -> Model:
    """Return what is deployed."""
    return Model(
        version=release.version,
        architecture=release.model.architecture,
        bundle=release.bundle,
        sparsity=release.sparsity,
        precision=release.precision,
        bytes=release.onnx_bytes,
        sha256=release.onnx_sha256,
        params=release.params,
        macs=release.macs,
        accuracy=release.accuracy,
        latency_ms=ModelLatency(release.latency_ms.p50, release.latency_ms.p95),
        created=release.created,
    )


def last_result(command: Command) -> LastResult:
    """Return how the last job ended."""
    status: Literal["successful", "failed"] = "failed" if command.error is not None else "successful"
    return LastResult(command.op, command.id, status, rfc3339(command.updated_at), command.error or UNSET)
