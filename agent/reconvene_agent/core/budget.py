"""The budget: what a model may cost on this board, and where each limit came from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

Positive = Annotated[float, Meta(gt=0.0)]
NotNegative = Annotated[float, Meta(ge=0.0)]
Share = Annotated[float, Meta(gt=0.0, le=1.0)]


class BudgetLimits(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Limits as written in a profile, a configuration, a command or on the command line; absent means unsaid.

    Attributes:
        latency_ms: p95 of one inference at batch 1, in milliseconds.
        latency_p50_ms: the median of the same.
        memory_mb: memory of inference, in MiB: the peak of loading the file and running it, above ONNX Runtime itself.
        memory_share: the same as a share of the memory that is available now; the absolute limit wins.
        training_memory_mb: memory of training above the libraries, in MiB.
        training_memory_share: the same as a share of the memory that is available now.
        model_mb: size of the ONNX file, in MiB.
        training_minutes: time of training, evaluation included.
        reserve_mb: memory that is never touched: it counts as not available, and no limit on memory reaches into it.
    """

    latency_ms: Positive | UnsetType = UNSET
    latency_p50_ms: Positive | UnsetType = UNSET
    memory_mb: Positive | UnsetType = UNSET
    memory_share: Share | UnsetType = UNSET
    training_memory_mb: Positive | UnsetType = UNSET
    training_memory_share: Share | UnsetType = UNSET
    model_mb: Positive | UnsetType = UNSET
    training_minutes: Positive | UnsetType = UNSET
    reserve_mb: NotNegative | UnsetType = UNSET


class Limit(Struct, frozen=True):
    """One resolved limit: its value in the unit of its name, and the source that set it."""

    value: float
    source: str


class Budget(Struct, frozen=True, omit_defaults=True):
    """Resolved limits; None means without limit. Units as in BudgetLimits."""

    latency_ms: Limit | None = None
    latency_p50_ms: Limit | None = None
    memory_mb: Limit | None = None
    training_memory_mb: Limit | None = None
    model_mb: Limit | None = None
    training_minutes: Limit | None = None

    def limits(self) -> Iterable[tuple[str, Limit]]:
        """Yield the limits that are set, by name."""
        for name in self.__struct_fields__:
            limit: Limit | None = getattr(self, name)
            if limit is not None:
                yield name, limit


LATENCIES = ("latency_ms", "latency_p50_ms")
"""The limits that only measuring can tell."""

_SHARES = {"memory_share": "memory_mb", "training_memory_share": "training_memory_mb"}
MEMORY = tuple(_SHARES.values())
"""The limits on memory."""
TIGHTER = 0.7
"""The share of its limits on memory that a run keeps to once the kernel has killed it for want of memory."""
LEAST_MB = 1.0
"""What is left where the reserve takes all that is available: a limit that nothing meets, and that says so."""


def resolve(sources: Iterable[tuple[str, BudgetLimits]], available_mb: float) -> Budget:
    """Merge limits, the later source winning limit by limit, and turn shares into MiB of ``available_mb`` without the reserve.

    A source that says both a share and an absolute value for one limit means the absolute value.
    """
    spoken = list(sources)
    reserve, reserved_by = 0.0, ""
    for source, limits in spoken:
        if limits.reserve_mb is not UNSET:
            reserve, reserved_by = limits.reserve_mb, source
    free = max(LEAST_MB, available_mb - reserve)
    left = f"{available_mb:.0f} MiB available" if not reserve else f"{free:.0f} MiB that {reserved_by} does not reserve"
    merged: dict[str, Limit] = {}
    for source, limits in spoken:
        said = {name: value for name in limits.__struct_fields__ if (value := getattr(limits, name)) is not UNSET}
        said.pop("reserve_mb", None)
        for share, absolute in _SHARES.items():
            if share in said:
                value = said.pop(share)
                merged[absolute] = Limit(value * free, f"{source}: {value:.0%} of {left}")
        merged.update({name: Limit(value, source) for name, value in said.items()})
    for name in MEMORY:
        if reserve and name in merged and merged[name].value > free:
            merged[name] = Limit(free, f"{merged[name].source}, less what {reserved_by} reserves")
    return msgspec.convert(merged, Budget)


def under(budget: Budget, ceilings_mb: Mapping[str, float]) -> Budget:
    """Return the budget with no limit on memory above its ceiling, by name, in MiB."""
    lower = {
        name: Limit(ceiling, f"less than the {ceiling / TIGHTER:.0f} MiB that were too much")
        for name, ceiling in ceilings_mb.items()
        if (limit := getattr(budget, name)) is None or limit.value > ceiling
    }
    return msgspec.structs.replace(budget, **lower)


def tighter(limits_mb: Mapping[str, float]) -> dict[str, float]:
    """Return the ceilings of a run within these limits, by name, in MiB, that the kernel has killed for want of memory."""
    return {name: limit * TIGHTER for name, limit in limits_mb.items()}
