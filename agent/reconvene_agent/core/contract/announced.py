"""What the agent publishes of itself and of its board, retained: the registration, its health, what it can do, and the twin."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from reconvene_agent.core.job import Failure
from reconvene_agent.core.release import Precision

Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
"""UTC, RFC 3339."""


class Registration(Struct, frozen=True, tag_field="@type", tag="service"):
    """Registers the service on a thin-edge bus."""

    name: str
    type: str


class Up(Struct, frozen=True, tag_field="status", tag="up"):
    """The agent is up.

    Attributes:
        pid: of the agent's process.
        time: when it said so.
        session: differs for every start of the process.
        boot_id: differs for every boot of the board.
        version: of the agent.
        state: ``idle``, ``stopping``, ``paused``, or the operation that runs.
    """

    pid: int
    time: Time
    session: str
    boot_id: str
    version: str
    state: str


class Down(Struct, frozen=True, tag_field="status", tag="down"):
    """The agent has stopped, or, as its last will, is gone.

    Attributes:
        session: the one that has ended; a newer one may be up.
    """

    session: str


class Capability(Struct, frozen=True):
    """The operation exists.

    Attributes:
        description: one line for people.
        args: the JSON Schema of its arguments.
    """

    description: str
    args: dict[str, Any]


class HardwareMemory(Struct, frozen=True):
    """The memory of a board.

    Attributes:
        total_mb: MiB, within the control group's limit.
        limited_by: what limits it; null where nothing does.
    """

    total_mb: float
    limited_by: str | None


class HardwareStorage(Struct, frozen=True):
    """The file system that holds the agent's state.

    Attributes:
        total_mb: MiB.
    """

    path: str
    total_mb: float


class Hardware(Struct, frozen=True):
    """What the board is, without the figures that change all the time.

    Attributes:
        model: the board's name from its device tree, or the machine's product name.
        compatible: the device tree's ``compatible`` strings, most specific first.
        architecture: as ``uname -m`` says (aarch64, x86_64).
        cores: processors that the agent may use.
    """

    model: str
    compatible: tuple[str, ...]
    architecture: str
    cpu: str
    cores: int
    memory: HardwareMemory
    storage: HardwareStorage
    os: str
    kernel: str


class ModelLatency(Struct, frozen=True):
    """Milliseconds of one inference at batch 1: median and 95th percentile."""

    p50: float
    p95: float


class Model(Struct, frozen=True):
    """What is deployed.

    Attributes:
        version: the release's name.
        bundle: SHA-256 of the manifest of the bundle that it came from.
        sparsity: share of weights that the criterion dropped.
        bytes: of the ONNX file.
        sha256: of the same.
        params: stored parameters.
        macs: multiply-accumulates of one inference.
        accuracy: on held-out local data, 0 to 1; null when the model was not trained.
        created: when it was made.
    """

    version: str
    architecture: str
    bundle: str
    sparsity: float
    precision: Precision
    bytes: int
    sha256: str
    params: int
    macs: int
    accuracy: float | None
    latency_ms: ModelLatency
    created: Time


class LastResult(Struct, frozen=True):
    """How the last job ended.

    Attributes:
        error: why it failed; absent when it did not.
    """

    op: str
    id: str
    status: Literal["successful", "failed"]
    finished_at: Time
    error: Failure | UnsetType = UNSET
