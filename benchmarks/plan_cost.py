"""What a plan costs, and whether it is right: its search against measuring every candidate, on this machine.

For VGG-16 and ResNet-20 at 32×32, every candidate of the whole grid is measured; its latencies set three budgets: one
that half the width multipliers meet, one that only the smallest meets, and one that nothing can meet. For each,
`reconvene-agent plan` runs as a user starts it, imports included, and its choice is set against what the rule chooses from the
grid. Prints both, the seconds and their ratio, and fails where a plan takes more than 15 s or is more than one candidate off.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from reconvene_agent.core import plan as rules
from reconvene_agent.core.budget import Budget, Limit
from reconvene_agent.core.errors import ErrorCode
from reconvene_agent.core.options import DEFAULT_SPARSITIES, DEFAULT_WIDTH_MULTIPLIERS, MethodOptions
from reconvene_agent.core.plan import Candidate
from reconvene_agent.core.protocol import Runtime
from reconvene_agent.worker.deploy.export import Exporter
from reconvene_agent.worker.deploy.session import Session, open_session
from reconvene_agent.worker.deploy.trial import measured
from reconvene_agent.worker.models.opened import open_bundle
from reconvene_agent.worker.planning.search import on_paper
from reconvene_agent.worker.reconvene.method import Reconvene

AGENT = [str(Path(sys.executable).parent / "reconvene-agent")]
MODELS = ("vgg16", "resnet20")
MODEL_MB = {"vgg16": 4.0, "resnet20": 0.3}
MULTIPLE = 4
MAX_SECONDS = 15.0
RUNTIME = Runtime(1, 1, ("CPUExecutionProvider",), 64, MULTIPLE)


def grid(bundle: Path, seconds: float) -> tuple[list[list[Candidate]], float]:
    """Return every candidate, measured, and the seconds that it took; networks of equal widths are measured once."""
    started = time.perf_counter()
    opened = open_bundle(bundle)
    exporter = Exporter(opened.spec.input)
    sessions: dict[tuple[tuple[str, int], ...], Session] = {}
    columns: list[list[tuple[Candidate, tuple[tuple[str, int], ...]]]] = []
    for multiplier in DEFAULT_WIDTH_MULTIPLIERS:
        method = Reconvene(opened, MethodOptions(width_multiplier=multiplier), MULTIPLE)
        column = []
        for design in method.design(DEFAULT_SPARSITIES):
            shape = tuple(design.widths.items())
            if shape not in sessions:
                sessions[shape] = open_session(exporter.to_onnx(method.build(design).module).SerializeToString(), RUNTIME)
            column.append((on_paper(design, multiplier, 64), shape))
        columns.append(column)
    # One by one, as a plan does it: between ninety others each would find its caches cold.
    latencies = {shape: measured(session, seconds / len(sessions))[0].latency for shape, session in sessions.items()}
    found = [[msgspec.structs.replace(each, latency_ms=latencies[shape]) for each, shape in column] for column in columns]
    return found, time.perf_counter() - started


def plan(bundle: Path, budget: dict[str, float]) -> tuple[dict[str, Any] | None, float]:
    """Return what `reconvene-agent plan` chooses, None when nothing fits, and the seconds from its start to its end."""
    limits = [f"--{name.replace('_', '-')}={value:.6g}" for name, value in budget.items()]
    fixed = ["--threads", "1", "--width-multiple", str(MULTIPLE), "--json"]
    started = time.perf_counter()
    done = subprocess.run([*AGENT, "plan", str(bundle), *limits, *fixed], capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    document = json.loads(done.stdout)
    if "error" in document:
        if document["error"]["code"] != ErrorCode.INFEASIBLE:
            raise SystemExit(f"the plan failed: {document['error']['detail']}")
        return None, seconds
    chosen: dict[str, Any] = document["chosen"]
    return chosen, seconds


def preferred(columns: Sequence[Sequence[Candidate]], budget: Budget) -> list[tuple[float, float]]:
    """Return the knobs of all that the rule may choose, the best first."""
    on_paper_only = msgspec.structs.replace(budget, latency_ms=None)
    found: list[tuple[float, float]] = []
    for column in columns:
        fits = [(each.width_multiplier, each.sparsity) for each in column if rules.worst_miss(each, on_paper_only) is None]
        found += fits if column is columns[-1] else fits[:1]
    return found


def compare(model: str, folder: Path, seconds: float) -> bool:
    """Print the plans of one model beside those from the grid; return whether all are quick and right."""
    bundle = folder / model
    make = ["bundle", "create", str(bundle), "--model", model, "--input", "3x32x32", "--classes", "10", "--seed", "0"]
    subprocess.run([*AGENT, *make], check=True, capture_output=True)
    columns, grid_s = grid(bundle, seconds)
    size = Limit(MODEL_MB[model], "benchmark")
    order = preferred(columns, Budget(model_mb=size))
    latency = {(each.width_multiplier, each.sparsity): each.latency_ms.p95 for c in columns for each in c if each.latency_ms}
    middle, last = len(DEFAULT_WIDTH_MULTIPLIERS) // 2, len(DEFAULT_WIDTH_MULTIPLIERS) - 1

    def just_met(place: int) -> float:
        """Return a limit that a candidate meets and the one preferred to it does not, as far from both as can be."""
        ours, preferred_to_it = latency[order[place]], latency[order[place - 1]]
        return max(1.05 * ours, math.sqrt(ours * preferred_to_it))

    budgets = [just_met(middle), just_met(last), 0.3 * min(latency.values())]
    print(f"\n{model}: {sum(map(len, columns))} candidates, measured in {grid_s:.0f} s; at most {size.value:g} MiB")
    good = True
    for allowed in budgets:
        expected = rules.settle(columns, Budget(latency_ms=Limit(allowed, "benchmark"), model_mb=size)).chosen
        chosen, took = plan(bundle, {"latency_ms": allowed, "model_mb": size.value})
        wanted = None if expected is None else (expected.width_multiplier, expected.sparsity)
        found = None if chosen is None else (chosen["width_multiplier"], chosen["sparsity"])
        off = abs(_place(order, found) - _place(order, wanted))
        good = good and off <= 1 and took <= MAX_SECONDS
        verdict = "agree" if off == 0 else f"{off} apart"
        print(
            f"  p95 ≤ {allowed:6.3f} ms: plan {_named(found)} in {took:.1f} s, grid {_named(wanted)}: {verdict}, "
            f"{took / grid_s:.2f}× the seconds"
        )
    return good


def _place(order: Sequence[tuple[float, float]], knobs: tuple[float, float] | None) -> int:
    return len(order) if knobs is None else order.index(knobs)


def _named(knobs: tuple[float, float] | None) -> str:
    return "nothing" if knobs is None else rules.named(*knobs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="of measuring the grid of each model")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        good = [compare(model, Path(folder), arguments.seconds) for model in MODELS]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
