"""What each operation needs and may do, as the surroundings of an agent see it."""

from __future__ import annotations

from typing import Any

import msgspec

from reconvene_agent.core.job import TRANSITIONS, Command, Status
from reconvene_agent.core.messages import OPERATIONS
from reconvene_agent.core.overlay import MAX_STARTS, Overlay
from reconvene_agent.daemon import effects as do

_ARGS: dict[str, dict[str, Any]] = {
    **{key: {} for key in ("specialize", "plan", "cancel", "rollback", "pause", "resume", "ping")},
    "promote": {"version": "r0001-00000001"},
    "config_update": {"set": {"telemetry.interval_s": 5}},
    "restart": {},
    "log_upload": {},
}

HARMLESS = (
    *(do.Record, do.Clean, do.Sample, do.CountData, do.TimeModel, do.EndTiming, do.ReadRelease, do.Answer, do.Remember),
    *(do.Log, do.ForgetNonces),
)
"""What changes nothing around the agent that its commands depend on; before it and after it, a crash is the same."""


def args_of(op: str) -> dict[str, Any]:
    """Return arguments with which an operation can be done."""
    assert op in _ARGS, f"the operation {op!r} is new: add arguments for it to _ARGS in tests/support/promises.py"
    return _ARGS[op]


def following(command: Command) -> frozenset[Status]:
    """Return the states that may come next; what is done at once is not journaled in between."""
    steps = TRANSITIONS[command.status]
    return steps if OPERATIONS[command.op].is_job else steps.union(*(TRANSITIONS[step] for step in steps))


def started_on_trial(overlay: Overlay) -> Overlay:
    """Return the overlay after a start of the agent, which is counted if settings are on trial."""
    trial = overlay.trial
    if trial is None:
        return overlay
    if trial.starts >= MAX_STARTS:
        return overlay.settled(False, "started too often")
    return msgspec.structs.replace(overlay, trial=msgspec.structs.replace(trial, starts=trial.starts + 1))
