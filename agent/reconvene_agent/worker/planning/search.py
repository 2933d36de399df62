"""The search: cost candidates on paper, measure the few whose latency can change the choice."""

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
from reconvene_agent.worker.training import guard

MEASURE_SECONDS = 1.0

Report = Callable[[float, str], None]


def on_paper(design: Design, multiplier: float, batch: int) -> Candidate:
    """Return a design as a candidate, with all costs that shapes alone tell; ``batch`` is that of training."""
    paper = design.costs()
    return Candidate(
        sparsity=design.sparsity,
        width_multiplier=multiplier,
        params=paper.params,
        bytes=paper.file_bytes,
        macs=paper.macs,
        memory_mb=round(paper.memory / 2**20, 3),
        training_memory_mb=round(guard.least(paper.training, batch) / guard.MIB, 3),
    )


class Planner:
    """Finds the plan for one bundle on this board; ``methods`` returns the method for a width multiplier."""

    def __init__(self, methods: Callable[[float], Reconvene], exporter: Exporter, runtime: Runtime, batch: int) -> None:
        self._methods = methods
        self._exporter = exporter
        self._runtime = runtime
        self._batch = batch
        self._known: dict[tuple[tuple[str, int], ...], Latency] = {}

    def search(self, multipliers: Sequence[float], sparsities: Sequence[float], budget: Budget, report: Report) -> Plan:
        """Choose by the rule of ``core.plan``; ``report`` hears the share done and what is being done."""
        widths, ordered = sorted(set(multipliers), reverse=True), sorted(set(sparsities))
        columns: list[list[Candidate] | None] = [None] * len(widths)
        designs: dict[int, list[Design]] = {}
        done = 0
        while (step := rules.next_step(columns, budget)) is not None:
            index, row = step
            multiplier, column = widths[index], columns[index]
            if column is None or row is None:
                report(done / (done + 3), f"scoring weights at width ×{multiplier:g}")
                designs[index] = self._methods(multiplier).design(ordered)
                columns[index] = [on_paper(design, multiplier, self._batch) for design in designs[index]]
                continue
            report(done / (done + 3), f"measuring {rules.named(multiplier, ordered[row])}")
            latency = self._latency(multiplier, designs[index][row])
            column[row] = msgspec.structs.replace(column[row], latency_ms=latency)
            done += 1
        return rules.settle(columns, budget)

    def imposed(self, multiplier: float, sparsity: float, budget: Budget, report: Report) -> Plan:
        """Return the plan of imposed knobs, measured all the same."""
        report(0.0, f"measuring {rules.named(multiplier, sparsity)}")
        (design,) = self._methods(multiplier).design([sparsity])
        candidate = on_paper(design, multiplier, self._batch)
        return rules.impose(msgspec.structs.replace(candidate, latency_ms=self._latency(multiplier, design)), budget)

    def _latency(self, multiplier: float, design: Design) -> Latency:
        """Return the latency of a design; those of equal widths share it, since at initialisation it depends on shapes alone."""
        shape = tuple(design.widths.items())
        if shape not in self._known:
            self._known[shape] = self._measured(self._methods(multiplier), design)
        return self._known[shape]

    def _measured(self, method: Reconvene, design: Design) -> Latency:
        """Prune for real, make the ONNX graph and time it."""
        proto = self._exporter.to_onnx(method.build(design).module)
        (latency,) = measure([open_session(proto.SerializeToString(), self._runtime)], MEASURE_SECONDS)
        return latency
