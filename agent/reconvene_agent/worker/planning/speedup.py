"""Whether pruning makes a model faster here: measured against the dense one, before a night goes into training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import Struct
from torch import nn

from reconvene_agent.core.protocol import Runtime
from reconvene_agent.core.release import Latency
from reconvene_agent.core.signatures import Signature, no_speedup
from reconvene_agent.worker.deploy.export import Exporter
from reconvene_agent.worker.deploy.session import Session, measure, open_session
from reconvene_agent.worker.models.opened import OpenBundle
from reconvene_agent.worker.reconvene.method import PrunedModel

COPIES = 4
"""So often is the dense model in memory while it is made into a graph and opened."""


class Speedup(Struct, frozen=True):
    """Both latencies, timed in turn, or why they were not."""

    dense: Latency | None = None
    pruned: Latency | None = None
    why_not: str = ""

    @property
    def signature(self) -> Signature | None:
        return None if self.dense is None or self.pruned is None else no_speedup(self.dense, self.pruned)

    def document(self) -> dict[str, Any]:
        """Return what results tell of it."""
        if self.dense is None or self.pruned is None:
            return {"dense": None, "ratio": None, "why_not": self.why_not}
        return {"dense": msgspec.to_builtins(self.dense), "ratio": round(self.dense.p50 / self.pruned.p50, 3), "why_not": ""}


@dataclass(frozen=True)
class Dense:
    """The dense model, to be timed against; it takes ``file_bytes`` when it is deployed."""

    bundle: OpenBundle
    file_bytes: int
    exporter: Exporter
    runtime: Runtime

    def find(self, small: PrunedModel, memory_mb: float | None, seconds: float) -> Speedup:
        """Time the dense model and the small one in turn, again if the first time shows no speed-up.

        Where ``memory_mb`` is too little to hold the dense model, nothing is measured.
        """
        needed = COPIES * self.file_bytes / 2**20
        if memory_mb is not None and needed > memory_mb:
            return Speedup(why_not=f"the dense model takes {needed:.0f} MiB to be measured, {memory_mb:.0f} are available")
        sessions = [self._session(small.module), self._session(self.bundle.dense())]
        found = _timed(*measure(sessions, seconds))
        return found if found.signature is None else _timed(*measure(sessions, seconds))

    def _session(self, model: nn.Module) -> Session:
        return open_session(self.exporter.to_onnx(model).SerializeToString(), self.runtime)


def _timed(pruned: Latency, dense: Latency) -> Speedup:
    return Speedup(dense, pruned)
