"""The status document: what the agent says of itself on the local socket and keeps on disk (docs/json.md)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from reconvene_agent.core.clock import Now, rfc3339
from reconvene_agent.core.device import Device
from reconvene_agent.core.job import Command
from reconvene_agent.core.release import Release
from reconvene_agent.daemon.reporting import announce
from reconvene_agent.daemon.reporting.identity import Identity


class Broker(Struct, frozen=True):
    """The connection as the status tells it. ``url`` is empty when no broker is configured."""

    url: str
    connected: bool = False
    protocol: str = ""
    reason: str = "not connected yet"


class Run(Protocol):
    """A job that runs, as far as the status tells of it; ``started`` is on the monotonic clock."""

    command: Command
    note: str
    started: float


def job(run: Run | None, paused: Command | None, now: Now) -> dict[str, Any] | None:
    """Return the running job, else the one that is paused; its note says why."""
    command = paused if run is None else run.command
    if command is None:
        return None
    return {
        "op": command.op,
        "id": command.id,
        "status": command.status.value,
        "step": command.step.value if command.step else None,
        "progress": round(command.progress, 4),
        "note": command.reason or run.note if run is not None else command.reason,
        "attempt": command.attempt,
        "elapsed_s": None if run is None else round(now.mono - run.started, 1),
    }


def document(
    identity: Identity,
    now: Now,
    started: float,
    state: str,
    broker: Broker,
    run: Run | None,
    release: Release | None,
    device: Device | None,
    alarms: list[str],
    paused: Command | None = None,
    hold: str | None = None,
    updated: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the whole status. ``paused`` is the job that waits for ``hold``; ``updated`` are the settings that commands
    have changed.

    ``problems`` are what makes the agent degraded, one line each; ``alarms`` among them.
    """
    unconnected = [f"no broker: {broker.reason}"] if broker.url and not broker.connected else []
    return {
        "state": state,
        "device_id": identity.topics.device,
        "version": identity.version,
        "uptime_s": round(now.mono - started, 1),
        "updated_at": rfc3339(now.wall),
        "broker": msgspec.to_builtins(broker),
        "job": job(run, paused, now),
        "paused": hold,
        "updated": list(updated),
        "release": None if release is None else msgspec.to_builtins(announce.model(release)),
        "device": None if device is None else msgspec.to_builtins(device),
        "problems": [*unconnected, *alarms],
    }
