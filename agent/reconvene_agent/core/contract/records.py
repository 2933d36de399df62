"""What the agent publishes through its spool: measurements and events. The daemon publishes these shapes without loading them."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType, field

from reconvene_agent.core.contract.announced import Time
from reconvene_agent.core.contract.results import Gate, Macs, Params, Seconds
from reconvene_agent.core.plan import Candidate
from reconvene_agent.core.release import Latency, Precision
from reconvene_agent.core.topics import EventName, MeasurementName


class Record(Struct, frozen=True, kw_only=True):
    """What every measurement and every event holds.

    Attributes:
        time: when it happened, by the board's clock.
        boot_id: differs for every boot of the board.
        seq: grows from record to record, with gaps; repeats within no boot, so that with ``boot_id`` it tells what comes twice.
        dropped_total: how many records had to go for want of room, ever; absent while there are none.
    """

    time: Time
    boot_id: str
    seq: Annotated[int, Meta(ge=1)]
    dropped_total: Annotated[int, Meta(ge=1)] | UnsetType = UNSET


class System(Record, frozen=True, kw_only=True):
    """How the board fares. What it cannot tell is absent.

    Attributes:
        cpu_percent: load of the processors since the last sample, 0 to 100.
        memory_available_mb: MiB, within the control group's limit.
        memory_used_mb: the same.
        swap_used_mb: MiB.
        temperature_c: of the hottest thermal zone, degrees Celsius.
        storage_free_mb: MiB, where the agent's state lies.
        load_1min: processes that run or wait, averaged over a minute.
        agent_rss_mb: resident memory of the agent, MiB.
    """

    cpu_percent: float | UnsetType = UNSET
    memory_available_mb: float | UnsetType = UNSET
    memory_used_mb: float | UnsetType = UNSET
    swap_used_mb: float | UnsetType = UNSET
    temperature_c: float | UnsetType = UNSET
    storage_free_mb: float | UnsetType = UNSET
    load_1min: float | UnsetType = UNSET
    agent_rss_mb: float | UnsetType = UNSET


class Training(Record, frozen=True, kw_only=True):
    """One epoch of training.

    Attributes:
        epoch: counted from 1.
        loss: the mean over the training inputs.
        accuracy: on the held-out inputs, 0 to 1.
    """

    epoch: int
    loss: float
    accuracy: float
    learning_rate: float


class Inference(Record, frozen=True, kw_only=True):
    """The deployed model, timed: after it was made, and now and then.

    Attributes:
        latency_ms_p50: median of one inference at batch 1, milliseconds.
        latency_ms_p95: 95th percentile of the same.
        bytes: of the ONNX file, when it was made just now.
    """

    latency_ms_p50: float
    latency_ms_p95: float
    bytes: int | UnsetType = UNSET


class OfCommand(Record, frozen=True, kw_only=True):
    """What every event of a command holds.

    Attributes:
        command: the command as ``operation/id``.
    """

    command: str


class PlanChosen(OfCommand, frozen=True, kw_only=True):
    """A plan has found the width multiplier and the sparsity.

    Attributes:
        sparsity: of ``chosen``.
    """

    sparsity: float
    chosen: Candidate


class ModelPruned(OfCommand, frozen=True, kw_only=True):
    """The model is pruned, and not trained yet."""

    sparsity: float
    params: Params
    macs: Macs
    seconds: Seconds


class Epoch(OfCommand, frozen=True, kw_only=True):
    """One epoch of training is over; after a restart from a checkpoint some are told again.

    Attributes:
        epoch: counted from 1.
        epochs: how many there will be at most.
        loss: the mean over the training inputs.
        accuracy: on the held-out inputs, 0 to 1.
        best: whether no epoch before was better.
    """

    epoch: int
    epochs: int
    loss: float
    accuracy: float
    learning_rate: float
    best: bool


class ReleaseMade(OfCommand, frozen=True, kw_only=True):
    """A new model serves.

    Attributes:
        path: of the release's folder on the board.
        onnx: of the deployed file.
        sha256: of the same.
        accuracy: of the deployed file on held-out inputs, 0 to 1.
        sparsity: share of weights that the criterion dropped.
    """

    path: str
    onnx: str
    version: str
    bytes: int
    sha256: str
    precision: Precision
    latency_ms: Latency
    accuracy: float | None
    sparsity: float


class ReleaseRefused(ReleaseMade, frozen=True, kw_only=True):
    """A new model has not earned its place; it is kept aside, and what served before goes on serving."""

    gate: Gate


class Switched(OfCommand, frozen=True, kw_only=True):
    """A command let another release serve.

    Attributes:
        before: the version that served; null where none did.
        after: the version that serves.
    """

    before: str | None
    after: str


class Fell(Record, frozen=True, kw_only=True):
    """A release was found broken, and the one before serves in its place.

    Attributes:
        before: the version that is broken.
        after: the version that serves.
        reason: what is wrong with the broken one.
    """

    before: str
    after: str
    reason: str


class DataChanged(OfCommand, frozen=True, kw_only=True):
    """Local data have grown, so the agent starts a run by itself.

    Attributes:
        files: how many there are now.
        bytes: of all files.
        new_share: by which they have grown, as a share of what was trained on.
    """

    files: int
    bytes: int
    new_share: float


class Paused(Record, frozen=True, kw_only=True):
    """Work waits.

    Attributes:
        command: the job that waits, as ``operation/id``; null where all work was paused on command.
        cause: for programs: ``command``, ``heat``, ``voltage``, ``clock`` (it is not known what time it is) or ``window``.
        reason: the same in words.
    """

    command: str | None
    cause: str
    reason: str


class Resumed(Record, frozen=True, kw_only=True):
    """Work goes on.

    Attributes:
        command: as in ``paused``.
    """

    command: str | None


class Replanned(OfCommand, frozen=True, kw_only=True):
    """The kernel killed a job for want of memory, and it is planned again.

    Attributes:
        limits_mb: what the limits of memory may not exceed now, by name, in MiB.
    """

    reason: str
    limits_mb: dict[str, float]


class Throttled(Record, frozen=True, kw_only=True):
    """Something has begun to hold the board's clocks down.

    Attributes:
        temperature_c: of the hottest thermal zone, degrees Celsius; null where the board cannot tell.
    """

    temperature_c: float | None


class Warned(OfCommand, frozen=True, kw_only=True):
    """A job goes on, but somebody should know.

    Attributes:
        text: one line for people.
        name: of a failure of the method that was recognised.
        skipped: how many inputs were left out, by reason.
        examples: some of them.
    """

    text: str
    name: str | UnsetType = UNSET
    skipped: dict[str, int] | UnsetType = UNSET
    examples: tuple[str, ...] | UnsetType = UNSET


class LogLine(Struct, frozen=True):
    """One line of the log.

    Attributes:
        level: ``debug``, ``info``, ``warning``, ``error`` or ``critical``.
        from: ``worker`` where it is what a worker wrote.
        op: of the command that it is about.
        command: the id of the same.
        job: its key, for a job: what its work folder is called.
    """

    time: Time
    level: str
    text: str
    source: str | UnsetType = field(default=UNSET, name="from")
    op: str | UnsetType = UNSET
    command: str | UnsetType = UNSET
    job: str | UnsetType = UNSET


class Logged(OfCommand, frozen=True, kw_only=True):
    """Some of the lines that ``log_upload`` asked for, oldest first.

    Attributes:
        part: counted from 1.
        parts: how many there are.
    """

    part: int
    parts: int
    lines: tuple[LogLine, ...]


MEASUREMENTS: dict[MeasurementName, type[Record]] = {"system": System, "training": Training, "inference": Inference}

EVENTS: dict[EventName, tuple[type[Record], ...]] = {
    "plan_chosen": (PlanChosen,),
    "model_pruned": (ModelPruned,),
    "epoch": (Epoch,),
    "model_promoted": (ReleaseMade, Switched),
    "release_refused": (ReleaseRefused,),
    "rolled_back": (Switched, Fell),
    "data_changed": (DataChanged,),
    "paused": (Paused,),
    "resumed": (Resumed,),
    "replanned": (Replanned,),
    "throttled": (Throttled,),
    "warning": (Warned,),
    "log": (Logged,),
}
"""What each event may hold."""
