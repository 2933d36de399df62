"""What the daemon (or a command line) and a worker say to each other: JSON lines over the worker's own channel.

The worker first proves itself with ``ready``; then one request comes down, progress and events go up, and exactly one of
``done`` and ``failed`` ends the talk. ``stop`` may come down at any time.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import Struct

from reconvene_agent.core.budget import Budget
from reconvene_agent.core.decoding import from_json
from reconvene_agent.core.errors import ErrorCode
from reconvene_agent.core.job import Step
from reconvene_agent.core.options import MethodOptions, ReleaseOptions, TrainingOptions

VERSION = 1
MAX_LINE = 1 << 20


class Runtime(Struct, frozen=True):
    """How to compute on this board: threads, ONNX Runtime's execution providers in order of preference, where to train.

    At most ``batch_cap`` training inputs are in memory at a time. Narrowed widths are rounded up to a multiple of
    ``width_multiple``.
    """

    inference_threads: int
    training_threads: int
    providers: tuple[str, ...]
    batch_cap: int
    width_multiple: int = 1
    training_device: Literal["cpu", "cuda"] = "cpu"


class Scoring(Struct, frozen=True):
    """What a criterion may use: local data, for those that score by the loss, and so much memory in MiB.

    ``validation`` is the share of the data that is held out, where they do not say it themselves, ``overlap`` that of windows.
    """

    data: str | None = None
    validation: float = TrainingOptions().validation
    overlap: float = TrainingOptions().overlap
    memory_mb: float | None = None


class PlanRequest(Struct, frozen=True, tag="plan"):
    """Find the width multiplier and the sparsity that fit. ``sparsity`` imposes it, at the method's own width multiplier;
    ``batch`` is that of training.

    All paths in requests are absolute.
    """

    bundle: str
    budget: Budget
    runtime: Runtime
    method: MethodOptions
    sparsities: tuple[float, ...]
    width_multipliers: tuple[float, ...]
    batch: int
    sparsity: float | None = None
    scoring: Scoring = Scoring()


class PruneRequest(Struct, frozen=True, tag="prune"):
    """Prune a bundle at one sparsity and store the small model, untrained, in ``out``."""

    bundle: str
    sparsity: float
    method: MethodOptions
    runtime: Runtime
    out: str
    scoring: Scoring = Scoring()


class SpecializeRequest(Struct, frozen=True, tag="specialize"):
    """The whole run. ``work`` holds what must survive an interruption; releases go below ``models``.

    Decoded inputs take at most ``cache_mb`` MiB of ``work``'s disk.
    """

    plan: PlanRequest
    training: TrainingOptions
    data: str
    work: str
    models: str
    release: ReleaseOptions = ReleaseOptions()
    cache_mb: float | None = None


class PredictRequest(Struct, frozen=True, tag="predict"):
    """Classify image files with a deployed model."""

    images: tuple[str, ...]
    model: str
    runtime: Runtime
    top: int = 3


class TimeRequest(Struct, frozen=True, tag="time"):
    """Time a deployed model."""

    model: str
    runtime: Runtime
    seconds: float = 2.0


class BenchRequest(Struct, frozen=True, tag="bench"):
    """Time the dense bundle against a release or a pruned model, interleaved."""

    bundle: str
    model: str
    runtime: Runtime
    seconds: float = 5.0


class ExportWeightsRequest(Struct, frozen=True, tag="bundle-weights"):
    """Write the initial weights that a seed stands for into a bundle's weights file."""

    architecture: str
    input: tuple[int, ...]
    classes: int
    seed: int
    path: str


Request = PlanRequest | PruneRequest | SpecializeRequest | PredictRequest | TimeRequest | BenchRequest | ExportWeightsRequest


class Stop(Struct, frozen=True, tag="stop"):
    """Stop at the next safe point. ``suspend`` keeps a checkpoint to resume from, ``cancel`` need not."""

    mode: Literal["cancel", "suspend"]


Downward = Request | Stop


class Ready(Struct, frozen=True, tag="ready"):
    """The handshake: the worker speaks this protocol version and is who was started."""

    protocol: int
    version: str
    pid: int


class Progress(Struct, frozen=True, tag="progress"):
    """Where the run is: the step, the share of that step that is done (0 to 1), and a word for people."""

    step: Step
    fraction: float
    note: str = ""


class Happening(Struct, frozen=True, tag="event"):
    """Something worth a record: ``plan``, ``prune``, ``epoch``, ``release``, ``warning`` … with its figures."""

    name: str
    data: dict[str, Any]


class Done(Struct, frozen=True, tag="done"):
    """The run succeeded with this result document."""

    result: dict[str, Any]


class Failed(Struct, frozen=True, tag="failed"):
    """The run ended with a known failure. ``result`` holds what is worth keeping of it, such as an infeasible plan."""

    code: ErrorCode
    message: str
    result: dict[str, Any] | None = None


class Suspended(Struct, frozen=True, tag="suspended"):
    """The run stopped as asked and can be resumed from its checkpoint."""


Upward = Ready | Progress | Happening | Done | Failed | Suspended

_upward = msgspec.json.Decoder(Upward)
_downward = msgspec.json.Decoder(Downward)


def encode(message: Upward | Downward) -> bytes:
    """Return a message as one line.

    Raises:
        ValueError: the line is longer than MAX_LINE.
    """
    line = msgspec.json.encode(message) + b"\n"
    if len(line) > MAX_LINE:
        raise ValueError(f"a message of {len(line)} bytes is over the channel's limit of {MAX_LINE}")
    return line


def decode_upward(line: bytes) -> Upward:
    """Read a worker's line.

    Raises:
        msgspec.DecodeError: it is not a message of this protocol.
    """
    message: Upward = from_json(line, _upward.decode)
    return message


def decode_downward(line: bytes) -> Downward:
    """Read a line meant for the worker.

    Raises:
        msgspec.DecodeError: it is not a message of this protocol.
    """
    message: Downward = from_json(line, _downward.decode)
    return message
