"""The messages of the wire contract (docs/mqtt.md): what controllers send, decoded strictly, and what the agent announces."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from reconvene_agent.core import clock, updatable
from reconvene_agent.core.budget import BudgetLimits
from reconvene_agent.core.contract.announced import Capability, Registration
from reconvene_agent.core.decoding import from_json, located
from reconvene_agent.core.errors import ErrorCode, UsageError
from reconvene_agent.core.job import AGENT_FIELDS, Command, Status
from reconvene_agent.core.options import (
    DEFAULT_SPARSITIES,
    DEFAULT_WIDTH_MULTIPLIERS,
    Candidates,
    LogLevel,
    MethodOptions,
    Multipliers,
    ReleaseOptions,
    Sparsity,
    TrainingOptions,
)
from reconvene_agent.core.shelf import KEPT_BEHIND_CURRENT

MAX_PAYLOAD = 256 * 1024

Name = Annotated[str, Meta(min_length=1, max_length=255)]
Moment = str | float
SettingName = Annotated[str, Meta(extra_json_schema={"enum": list(updatable.NAMES)})]


class PlanArgs(Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of ``plan``. What is left out, setting by setting, comes from the agent's configuration.

    Attributes:
        bundle: a name inside the agent's own bundle folder; never a path out of it.
        sparsity: skips the choice, not the measuring.
        sparsities: the candidates of the plan.
        width_multipliers: the same of the other knob; one that the method imposes overrules them.
        budget: limits that go over those of profile and configuration.
        data: a name inside the agent's own data folder; a plan needs them only for criteria that score by the loss.
    """

    bundle: Name | UnsetType = UNSET
    data: Name | UnsetType = UNSET
    sparsity: Sparsity | UnsetType = UNSET
    sparsities: Candidates = DEFAULT_SPARSITIES
    width_multipliers: Multipliers = DEFAULT_WIDTH_MULTIPLIERS
    budget: BudgetLimits = BudgetLimits()
    method: MethodOptions = MethodOptions()


class SpecializeArgs(PlanArgs, frozen=True, forbid_unknown_fields=True):
    """Arguments of ``specialize``: those of ``plan``, how to train, and what a release must be."""

    training: TrainingOptions = TrainingOptions()
    release: ReleaseOptions = ReleaseOptions()


class CancelArgs(Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of ``cancel``: the command to stop, or whatever runs when none is named."""

    id: Name | UnsetType = UNSET


class RollbackArgs(Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of ``rollback``: how many steps; broken releases count as none."""

    steps: Annotated[int, Meta(ge=1, le=KEPT_BEHIND_CURRENT)] = 1


class PromoteArgs(Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of ``promote``: the release to serve, by its version or the beginning of it."""

    version: Name


class PingArgs(Struct, frozen=True, forbid_unknown_fields=True):
    """``ping`` takes no arguments; it answers with the agent's state."""


class PauseArgs(Struct, frozen=True, forbid_unknown_fields=True):
    """``pause`` and ``resume`` take no arguments; they answer with what work waits for then."""


class ConfigUpdateArgs(Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of ``config_update``.

    Attributes:
        set: values by dotted name; null goes back to the owner's.
        trial_s: how long the broker may take to be reached, where its own settings change, before all is taken back.
    """

    set: dict[SettingName, Any]
    trial_s: Annotated[float, Meta(ge=1.0, le=3600.0)] = 120.0

    def __post_init__(self) -> None:
        if wrong := updatable.mistake(self.set):
            raise ValueError(wrong)


class LogUploadArgs(Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of ``log_upload``: how many of the last lines, of what level at least, and of which command, by its id."""

    lines: Annotated[int, Meta(ge=1, le=10_000)] = 200
    level: LogLevel = "debug"
    command: Name | UnsetType = UNSET


class RestartArgs(Struct, frozen=True, forbid_unknown_fields=True):
    """``restart`` takes no arguments; it answers once the agent is up again."""


Args = (
    SpecializeArgs
    | PlanArgs
    | CancelArgs
    | RollbackArgs
    | PromoteArgs
    | ConfigUpdateArgs
    | LogUploadArgs
    | RestartArgs
    | PauseArgs
    | PingArgs
)


class Operation(Struct, frozen=True):
    """One thing a controller can ask for. A job runs in a worker, one at a time; the others are answered at once.

    ``guarded`` if it must be signed where keys are trusted: all that does more than answer.
    """

    args: type[Args]
    description: str
    is_job: bool
    guarded: bool = True


OPERATIONS: dict[str, Operation] = {
    "specialize": Operation(SpecializeArgs, "Fit the shipped model to this board, train it on local data and deploy it.", True),
    "plan": Operation(PlanArgs, "Find the width multiplier and the sparsity that fit the budget on this board.", True),
    "cancel": Operation(CancelArgs, "Stop the running command, or the one named.", False),
    "rollback": Operation(RollbackArgs, "Let the model serve that served before.", False),
    "promote": Operation(PromoteArgs, "Let a release that is kept on the board serve.", False),
    "pause": Operation(PauseArgs, "Let the running job keep a checkpoint and wait, and start no other, until resume.", False),
    "resume": Operation(PauseArgs, "Go on after pause.", False),
    "config_update": Operation(
        ConfigUpdateArgs, "Change settings; they are taken back if the agent cannot live with them.", False
    ),
    "log_upload": Operation(LogUploadArgs, "Send the last lines of the log as events.", False),
    "restart": Operation(RestartArgs, "Stop in order and come up again; a running job goes on from its checkpoint.", False),
    "ping": Operation(PingArgs, "Answer with the agent's state.", False, guarded=False),
}


class Envelope(Struct, frozen=True):
    """The fields around a command's arguments that the agent understands; times in seconds since the epoch."""

    args: dict[str, Any]
    expires_at: float | None
    not_before: float | None
    timeout_s: float | None

    @property
    def timed(self) -> bool:
        """Whether a time of the controller's clock decides over this command."""
        return self.expires_at is not None or self.not_before is not None


class Request(Struct, frozen=True):
    """A command as a controller publishes it. Fields that are not known are kept, and stand in every state of the command.

    Attributes:
        args: the operation's arguments.
        issued_at: when the controller made it: RFC 3339 with an offset, or seconds since the epoch, like the other times.
        expires_at: it fails with EXPIRED if it has not started by then.
        not_before: it does not start before.
        timeout_s: from its start, pauses included; it is stopped then and fails with TIMED_OUT.
        requester: who wants it, for people.
    """

    status: str
    args: dict[str, Any] = {}
    issued_at: Moment | None = None
    expires_at: Moment | None = None
    not_before: Moment | None = None
    timeout_s: Annotated[float, Meta(gt=0)] | None = None
    requester: str | None = None


_object = msgspec.json.Decoder(dict[str, Any])


def decode_object(raw: bytes) -> dict[str, Any]:
    """Return a payload's JSON object.

    Raises:
        UsageError: INVALID_JSON when it is not JSON, SCHEMA when it is too large or not an object.
    """
    if len(raw) > MAX_PAYLOAD:
        raise UsageError(f"the payload has {len(raw)} bytes; at most {MAX_PAYLOAD} are accepted")
    try:
        return from_json(raw, _object.decode)
    except msgspec.ValidationError as error:
        raise UsageError(f"the payload must be a JSON object: {error}") from error
    except msgspec.DecodeError as error:
        raise UsageError(f"the payload is not JSON: {error}", ErrorCode.INVALID_JSON) from error


def request_of(message: dict[str, Any]) -> dict[str, Any]:
    """Return the controller's part of a command payload."""
    return {name: value for name, value in message.items() if name not in AGENT_FIELDS}


def decode_envelope(message: dict[str, Any]) -> Envelope:
    """Validate the fields around the arguments.

    Raises:
        UsageError: a field has the wrong type, a time cannot be read, or the status is not ``init``.
    """
    try:
        request = msgspec.convert(message, Request)
        expires_at = None if request.expires_at is None else clock.wall_seconds(request.expires_at)
        not_before = None if request.not_before is None else clock.wall_seconds(request.not_before)
        if request.issued_at is not None:
            clock.wall_seconds(request.issued_at)
    except (msgspec.ValidationError, ValueError, OverflowError) as error:
        raise UsageError(f"the command does not fit its schema: {located(error)}") from error
    if request.status != "init":
        raise UsageError(f"a new command must have status 'init', not {request.status!r}")
    return Envelope(request.args, expires_at, not_before, request.timeout_s)


def envelope_of(command: Command) -> Envelope:
    """Return the envelope of a command that was accepted before."""
    return decode_envelope({**command.request, "status": Status.INIT.value})


def decode_args(op: str, args: dict[str, Any], defaults: dict[str, Any]) -> Args:
    """Validate an operation's arguments, with ``defaults`` for what they leave out (of sections: field by field).

    Raises:
        UsageError: UNSUPPORTED for an unknown operation, SCHEMA for arguments that do not fit.
    """
    if op not in OPERATIONS:
        raise UsageError(f"operation {op!r} is not known; there are: {', '.join(OPERATIONS)}", ErrorCode.UNSUPPORTED)
    kind = OPERATIONS[op].args
    merged = {name: value for name, value in defaults.items() if name in kind.__struct_fields__} | args
    for name in ("method", "training", "release"):
        if isinstance(args.get(name), dict) and name in defaults:
            merged[name] = {**defaults[name], **args[name]}
    try:
        return msgspec.convert(merged, kind)
    except (msgspec.ValidationError, ValueError) as error:
        raise UsageError(f"wrong arguments: {located(error)}") from error


def capability(op: str) -> bytes:
    """Return what is announced for an operation: its description and the JSON Schema of its arguments."""
    operation = OPERATIONS[op]
    return msgspec.json.encode(Capability(operation.description, msgspec.json.schema(operation.args)))


def registration(name: str) -> bytes:
    """Return the retained message that registers the service on a thin-edge bus."""
    return msgspec.json.encode(Registration(name, "ml-agent"))
