"""The results of operations (docs/json.md). The worker publishes these shapes without loading them."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from reconvene_agent.core.gate import Rival
from reconvene_agent.core.plan import Plan
from reconvene_agent.core.release import Latency, Precision
from reconvene_agent.core.signatures import Signature


class Params(Struct, frozen=True):
    """Parameters of the dense model, those that the small one stores, and those of them that are not zero."""

    dense: int
    stored: int
    nonzero: int


class Macs(Struct, frozen=True):
    """Multiply-accumulates of one inference."""

    dense: int
    pruned: int


class Seconds(Struct, frozen=True):
    """How long it took."""

    total: float


class Layer(Struct, frozen=True):
    """What became of one prunable layer.

    Attributes:
        weights: after the width multiplier.
        kept: how many of them the criterion kept.
        density: their share.
        width_before: output channels of the dense model.
        width_after: those of the small one.
        frozen: why the width could not change, if so.
    """

    name: str
    weights: int
    kept: int
    density: float
    verdict: Literal["sensitive", "resilient"]
    width_before: int
    width_after: int
    frozen: str


class Compared(Struct, frozen=True):
    """The dense model, timed in turn with the pruned one before training.

    Attributes:
        ratio: the dense model's median by the pruned one's; null where it was not timed.
        why_not: why it was not.
    """

    dense: Latency | None
    ratio: float | None
    why_not: str


class Pruned(Struct, frozen=True):
    """How the model was pruned.

    Attributes:
        sparsity: share of weights that the criterion dropped.
    """

    sparsity: float
    width_multiplier: float
    layers: tuple[Layer, ...]
    params: Params
    macs: Macs
    seconds: Seconds
    speedup: Compared


class Inputs(Struct, frozen=True):
    """How many inputs there were; ``skipped`` were left out, by reason."""

    train: int
    held_out: int
    skipped: dict[str, int]


class TrainingMemory(Struct, frozen=True):
    """MiB above the libraries."""

    estimate: float
    measured: float


class Settled(Struct, frozen=True):
    """How training was settled within the limits of memory and time.

    Attributes:
        epochs: passes over the training inputs at most.
        micro_batch: inputs that are in memory at a time.
        recompute: whether activations are computed anew in the backward pass.
        spare: whether memory goes back as soon as it is freed.
        channels_last: whether images lie in memory channel by channel of each pixel.
        epoch_s: seconds of one epoch, as expected.
    """

    epochs: int
    micro_batch: int
    recompute: bool
    spare: bool
    precision: Literal["float32", "bfloat16"]
    channels_last: bool
    device: Literal["cpu", "cuda"]
    memory_mb: TrainingMemory
    epoch_s: float


class Trained(Struct, frozen=True):
    """How the small model was trained.

    Attributes:
        best_epoch: the one that is deployed.
        batch: inputs per step.
        images: the training inputs, images or not.
        peak_rss_mb: of the worker, MiB.
        memory_mb: the peak above what the worker took before the model was built, MiB.
        accuracy: on the held-out inputs, 0 to 1.
    """

    epochs: int
    best_epoch: int
    batch: int
    images: Inputs
    seconds: float
    images_per_second: float
    peak_rss_mb: float
    memory_mb: float
    accuracy: float
    settings: Settled


class DeployedRelease(Struct, frozen=True):
    """The release that was made.

    Attributes:
        path: of its folder on the board.
        onnx: of the deployed file.
        bytes: of the same.
        sha256: of the same.
    """

    path: str
    onnx: str
    version: str
    bytes: int
    sha256: str
    precision: Precision
    latency_ms: Latency


class Gate(Struct, frozen=True):
    """Whether a release has earned its place.

    Attributes:
        accuracy: of the deployed file on the held-out inputs, 0 to 1.
        recall: the same for each class, averaged over the classes.
        current: what served before, judged on the same inputs; null where nothing did.
        margin: by how much the accuracy may be below that.
        refused: the reasons against it, a line each.
        signature: a failure of the method that was recognised.
    """

    accuracy: float
    recall: float
    current: Rival | None
    margin: float
    refused: tuple[str, ...]
    signature: Signature | None


class Int8Bytes(Struct, frozen=True):
    """Bytes of both files."""

    float32: int
    int8: int


class Int8Accuracy(Struct, frozen=True):
    """Accuracy of both files on the held-out inputs, 0 to 1."""

    float32: float
    int8: float


class Int8Latency(Struct, frozen=True):
    """Both files, timed in turn."""

    float32: Latency
    int8: Latency


class Int8(Struct, frozen=True):
    """Whether int8 is deployed.

    Attributes:
        why_not: why float32 is deployed all the same.
    """

    deployed: bool
    why_not: str
    bytes: Int8Bytes | UnsetType = UNSET
    accuracy: Int8Accuracy | UnsetType = UNSET
    latency_ms: Int8Latency | UnsetType = UNSET


class PlanResult(Plan, frozen=True, kw_only=True):
    """The plan, also where nothing fits (INFEASIBLE).

    Attributes:
        seconds: of work, imports apart.
    """

    seconds: float


class SpecializeResult(Struct, frozen=True):
    """The whole run, also one whose model was refused (VERIFY_FAILED). Where nothing fits (INFEASIBLE) there is the plan alone.

    Attributes:
        int8: null unless it was asked for.
        parity_max_abs_diff: largest difference of a logit between the exported and the trained model, on real inputs.
    """

    plan: Plan
    prune: Pruned | UnsetType = UNSET
    training: Trained | UnsetType = UNSET
    release: DeployedRelease | UnsetType = UNSET
    int8: Int8 | UnsetType | None = UNSET
    gate: Gate | UnsetType = UNSET
    parity_max_abs_diff: float | UnsetType = UNSET


class CancelResult(Struct, frozen=True):
    """Which command was stopped, as ``operation/id``; null when nothing had to be."""

    canceled: str | None


class SwitchResult(Struct, frozen=True):
    """The versions that served before, if any did, and serve now."""

    before: str | None
    after: str


class PauseResult(Struct, frozen=True):
    """What training waits for now, or null."""

    paused: str | None


class ConfigUpdateResult(Struct, frozen=True):
    """The names of the settings that differ from before, such as ``budget.latency_ms``."""

    changed: tuple[str, ...]


class LogUploadResult(Struct, frozen=True):
    """How many lines there are, and in how many events they come."""

    lines: int
    parts: int


class RestartResult(Struct, frozen=True):
    """The process and the version that is up again."""

    pid: int
    version: str


class PingResult(Struct, frozen=True):
    """What the agent does, and its version."""

    state: str
    version: str


RESULTS: dict[str, type[Struct]] = {
    "specialize": SpecializeResult,
    "plan": PlanResult,
    "cancel": CancelResult,
    "rollback": SwitchResult,
    "promote": SwitchResult,
    "pause": PauseResult,
    "resume": PauseResult,
    "config_update": ConfigUpdateResult,
    "log_upload": LogUploadResult,
    "restart": RestartResult,
    "ping": PingResult,
}
"""The result of every operation of ``core.messages``."""
