"""The search: cost every candidate on paper, measure the few whose latency can change the choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from reconvene_agent.core import plan as rules
from reconvene_agent.core.budget import Budget
from reconvene_agent.core.plan import Candidate, Plan
from reconvene_agent.core.protocol import Runtime
from reconvene_agent.core.release import Latency
from reconvene_agent.worker.deploy.export import Exporter
from reconvene_agent.worker.deploy.session import measure, open_session
from reconvene_agent.worker.reconvene.method import Design, Reconvene

MEASURE_SECONDS = 1.0

Report = Callable[[float, str], None]


def on_paper(design: Design, batch: int) -> Candidate:
    """Return a design as a candidate, with all costs that shapes alone tell."""
    paper = design.costs(batch)
    return Candidate(
        sparsity=design.sparsity,
        params=paper.params,
        bytes=paper.file_bytes,
        macs=paper.macs,
        memory_mb=round(paper.memory / 2**20, 3),
        training_memory_mb=round(paper.training_memory / 2**20, 3),
    )


class Planner:
    """Finds the plan for one bundle on this board."""

    def __init__(self, reconvene: Reconvene, exporter: Exporter, runtime: Runtime, batch: int) -> None:
        self._reconvene = reconvene
        self._exporter = exporter
        self._runtime = runtime
        self._batch = batch

    def search(self, sparsities: Sequence[float], budget: Budget, report: Report) -> Plan:
        """Choose the lowest of ``sparsities`` that fits; ``report`` hears the share done and what is being done."""
        ordered = sorted(set(sparsities))
        report(0.0, "scoring weights")
        designs = self._reconvene.design(ordered)
        candidates = [on_paper(design, self._batch) for design in designs]
        measured = 0
        while (index := rules.next_to_measure(candidates, budget)) is not None:
            report(measured / (measured + 3), f"measuring sparsity {ordered[index]:g}")
            candidates[index] = msgspec.structs.replace(candidates[index], latency_ms=self._latency(designs[index]))
            measured += 1
        return rules.settle(candidates, budget)

    def imposed(self, sparsity: float, budget: Budget, report: Report) -> Plan:
        """Return the plan of an imposed sparsity, measured all the same."""
        report(0.0, f"measuring sparsity {sparsity:g}")
        (design,) = self._reconvene.design([sparsity])
        return rules.impose(msgspec.structs.replace(on_paper(design, self._batch), latency_ms=self._latency(design)), budget)

    def _latency(self, design: Design) -> Latency:
        """Prune for real, make the ONNX graph and time it: at initialisation latency depends on shapes alone."""
        proto = self._exporter.to_onnx(self._reconvene.build(design).module)
        (latency,) = measure([open_session(proto.SerializeToString(), self._runtime)], MEASURE_SECONDS)
        return latency
