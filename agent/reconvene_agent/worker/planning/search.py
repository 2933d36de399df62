"""The search: cost candidates on paper, measure the few whose latency can change the choice, verify the choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from reconvene_agent.core import plan as rules
from reconvene_agent.core.budget import Budget
from reconvene_agent.core.measuring import better, worth_repeating
from reconvene_agent.core.plan import Candidate, Plan
from reconvene_agent.core.protocol import Runtime
from reconvene_agent.worker.deploy.export import Exporter
from reconvene_agent.worker.deploy.session import measure_once, open_session
from reconvene_agent.worker.deploy.trial import measured
from reconvene_agent.worker.deploy.trying import TrialFailed, try_model
from reconvene_agent.worker.planning.findings import Finding
from reconvene_agent.worker.reconvene.method import Design, Reconvene
from reconvene_agent.worker.training import guard

MEASURE_SECONDS = 0.75
VERIFY_SECONDS = 1.5
REPEATS_IN_ALL = 3
"""Measurements on the way to the choice that one plan takes again, so that a board that is never quiet has its plan in time."""

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
        self._known: dict[tuple[tuple[str, int], ...], Finding] = {}
        self._repeats_left = REPEATS_IN_ALL

    def search(self, multipliers: Sequence[float], sparsities: Sequence[float], budget: Budget, report: Report) -> Plan:
        """Choose by the rule of ``core.plan``; ``report`` hears the share done and what is being done."""
        widths, ordered = sorted(set(multipliers), reverse=True), sorted(set(sparsities))
        columns: list[list[Candidate] | None] = [None] * len(widths)
        designs: dict[int, list[Design]] = {}
        done = 0
        while (step := rules.next_step(columns, budget)) is not None:
            index, row, verify = step
            multiplier, column = widths[index], columns[index]
            if column is None or row is None:
                report(done / (done + 3), f"scoring weights at width ×{multiplier:g}")
                designs[index] = self._methods(multiplier).design(ordered)
                columns[index] = [on_paper(design, multiplier, self._batch) for design in designs[index]]
                continue
            doing = f"{'verifying' if verify else 'measuring'} {rules.named(multiplier, ordered[row])}"
            heartbeat = partial(report, done / (done + 3), doing)
            heartbeat()
            find = self._verified if verify else self._quickly
            found = find(multiplier, designs[index][row], budget, heartbeat)
            column[row] = found.of(column[row])
            done += 1
        return rules.settle(columns, budget)

    def imposed(self, multiplier: float, sparsity: float, budget: Budget, report: Report) -> Plan:
        """Return the plan of imposed knobs, measured all the same."""
        heartbeat = partial(report, 0.0, f"measuring {rules.named(multiplier, sparsity)}")
        heartbeat()
        (design,) = self._methods(multiplier).design([sparsity])
        # Nothing else could be chosen instead, so all of it is measured, whatever is found first.
        found = self._verified(multiplier, design, msgspec.structs.replace(budget, memory_mb=None), heartbeat)
        return rules.impose(found.of(on_paper(design, multiplier, self._batch)), budget)

    def _quickly(self, multiplier: float, design: Design, budget: Budget, _heartbeat: Callable[[], None]) -> Finding:
        """Return the latency of a design; those of equal widths share it, since at initialisation it depends on shapes alone."""
        shape = tuple(design.widths.items())
        if shape not in self._known:
            self._known[shape] = self._measured(self._methods(multiplier), design, budget)
        return self._known[shape]

    def _verified(self, multiplier: float, design: Design, budget: Budget, heartbeat: Callable[[], None]) -> Finding:
        """Return what a design takes as the choice; of equal widths, one is tried for all."""
        shape = tuple(design.widths.items())
        known = self._known.get(shape)
        if known is None or not known.verified:
            self._known[shape] = self._tried(self._methods(multiplier), design, budget, heartbeat).after(known)
        return self._known[shape]

    def _measured(self, method: Reconvene, design: Design, budget: Budget) -> Finding:
        """Prune for real, make the ONNX graph and time it, again where a disturbance may have decided."""
        session = open_session(self._model(method, design), self._runtime)
        found, repeats = measure_once(session, MEASURE_SECONDS), 0
        while self._repeats_left > 0 and worth_repeating(found, budget, repeats):
            self._repeats_left -= 1
            found, repeats = better(found, measure_once(session, MEASURE_SECONDS)), repeats + 1
        return Finding(found, repeats)

    def _tried(self, method: Reconvene, design: Design, budget: Budget, heartbeat: Callable[[], None]) -> Finding:
        """Measure the file in a fresh process; where that fails, its latency in this one."""
        model = self._model(method, design)
        allowed = None if budget.memory_mb is None else budget.memory_mb.value
        try:
            outcome = try_model(model, self._runtime, VERIFY_SECONDS, allowed, heartbeat)
        except TrialFailed as failure:
            found, repeats = measured(open_session(model, self._runtime), VERIFY_SECONDS)
            return Finding(found, repeats, verified=True, failure=f"its memory is an estimate, since the trial failed: {failure}")
        return Finding(outcome.measurement, outcome.repeats, verified=True, memory_mb=outcome.memory_mb)

    def _model(self, method: Reconvene, design: Design) -> bytes:
        model: bytes = self._exporter.to_onnx(method.build(design).module).SerializeToString()
        return model
