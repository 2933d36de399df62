"""A command's life: its states, the legal transitions between them, and the record that the journal keeps."""

from __future__ import annotations

import hashlib
from enum import Enum
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from reconvene_agent.core.clock import rfc3339
from reconvene_agent.core.errors import ErrorCode


class Status(str, Enum):
    """The states of a command; the last two are its end."""

    INIT = "init"
    SCHEDULED = "scheduled"
    EXECUTING = "executing"
    SUCCESSFUL = "successful"
    FAILED = "failed"

    @property
    def terminal(self) -> bool:
        return not TRANSITIONS[self]


TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.INIT: frozenset({Status.SCHEDULED, Status.FAILED}),
    Status.SCHEDULED: frozenset({Status.EXECUTING, Status.FAILED}),
    Status.EXECUTING: frozenset({Status.SUCCESSFUL, Status.FAILED}),
    Status.SUCCESSFUL: frozenset(),
    Status.FAILED: frozenset(),
}


class Step(str, Enum):
    """The steps of a run, in order."""

    PROBE = "probe"
    PLAN = "plan"
    PRUNE = "prune"
    TRAIN = "train"
    EVALUATE = "evaluate"
    EXPORT = "export"
    PROMOTE = "promote"


class Failure(Struct, frozen=True):
    """Why a command failed: for programs (code, retryable) and for people (detail)."""

    code: ErrorCode
    retryable: bool
    detail: str

    @classmethod
    def of(cls, code: ErrorCode, detail: str) -> Failure:
        return cls(code, code.retryable, detail)


class State(Struct, frozen=True):
    """The state of a command.

    Every field of the request stands beside these as it came, known or not, right or wrong.

    Attributes:
        rev: grows with every state that is published.
        progress: 0 to 1 over the whole command.
        attempt: how often it was started; 0 before the first start.
        step: of a job that has started.
        reason: one line for people: why it waits or failed.
        error: why it failed, for programs.
    """

    status: Status
    rev: Annotated[int, Meta(ge=0)]
    progress: Annotated[float, Meta(ge=0.0, le=1.0)]
    attempt: Annotated[int, Meta(ge=0)]
    updated_at: Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
    step: Step | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    result: dict[str, Any] | UnsetType = UNSET
    error: Failure | UnsetType = UNSET


AGENT_FIELDS = frozenset(State.__struct_fields__)
"""What the agent writes into a command's payload; every other field is the controller's and is kept as it came."""


class Command(Struct, frozen=True):
    """One command as the journal keeps it.

    Attributes:
        request: the controller's fields, those unknown to us included.
        digest: SHA-256 of ``request``; tells a repeated command from another one under the same id.
        turn: grows from one command that comes or ends to the next: times do not tell their order, since clocks are set back.
        rev: grows with every published state, so the agent knows its own echoes.
        progress: 0 to 1 over the whole run.
        attempt: how often the command was started; 0 before the first start.
        acknowledged: the broker has confirmed the terminal state.
        shown_since: when that was, by a clock that could be believed.
        cleared: the retained message was removed, by the controller or by age.
        doomed: what it ends with, since its worker has been asked to stop for good; a restart does not save it.
        left_s: what was left of its ``timeout_s`` when this was written.
        limits_mb: the limits of memory by name, in MiB, that the worker was told when it was last started.
        ceilings_mb: what these must not exceed since the kernel killed a worker for want of memory; None while it has not.
    """

    op: str
    id: str
    request: dict[str, Any]
    digest: str
    received_at: float
    updated_at: float
    status: Status = Status.INIT
    turn: int = 0
    rev: int = 0
    step: Step | None = None
    progress: float = 0.0
    attempt: int = 0
    reason: str = ""
    result: dict[str, Any] | None = None
    error: Failure | None = None
    acknowledged: bool = False
    shown_since: float | None = None
    cleared: bool = False
    doomed: ErrorCode | None = None
    left_s: float | None = None
    limits_mb: dict[str, float] = {}
    ceilings_mb: dict[str, float] | None = None

    @property
    def key(self) -> str:
        """A name for this command that is safe as a file name."""
        return key_of(self.label)

    @property
    def label(self) -> str:
        return f"{self.op}/{self.id}"

    @property
    def name(self) -> str:
        """The label, and what tells this command from a later one under the same id, once it is forgotten."""
        return f"{self.label} {self.received_at:.6f}"


def key_of(label: str) -> str:
    """Return the key of the command with this label."""
    return hashlib.sha256(label.encode()).hexdigest()[:16]


def digest_of(request: dict[str, Any]) -> str:
    """Return the SHA-256 of a request's canonical JSON."""
    return hashlib.sha256(msgspec.json.encode(request, order="sorted")).hexdigest()


def advance(command: Command, wall: float, status: Status | None = None, **changes: Any) -> Command:
    """Return the command's next record: ``rev`` grows, ``updated_at`` is now, and a new status must be a legal one.

    Raises:
        ValueError: the transition is not in TRANSITIONS.
    """
    if status is not None and status is not command.status:
        if status not in TRANSITIONS[command.status]:
            raise ValueError(f"{command.label}: {command.status.value} cannot become {status.value}")
        changes["status"] = status
    elif command.status.terminal:
        raise ValueError(f"{command.label} is {command.status.value} and changes no more")
    return msgspec.structs.replace(command, rev=command.rev + 1, updated_at=wall, **changes)


def payload(command: Command) -> bytes:
    """Return the JSON that is published, retained, as this command's state."""
    state = State(
        status=command.status,
        rev=command.rev,
        progress=round(command.progress, 4),
        attempt=command.attempt,
        updated_at=rfc3339(command.updated_at),
        step=command.step or UNSET,
        reason=command.reason or UNSET,
        result=UNSET if command.result is None else command.result,
        error=command.error or UNSET,
    )
    said = {name: value for name in State.__struct_fields__ if (value := getattr(state, name)) is not UNSET}
    return msgspec.json.encode({**command.request, **said})
