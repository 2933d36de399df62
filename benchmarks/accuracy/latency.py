"""Latency, apart from training: every distinct shape once, all of a model in turn, so that disturbances hit all alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from accuracy import engine
from accuracy.arms import ARMS, RIVALS, Arm, Point
from accuracy.engine import Deployer, Widths
from accuracy.settings import Settings
from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.worker.deploy.session import measure

LADDER = tuple(round(0.05 * step, 2) for step in range(1, 21))
SLOWER = 1.03
"""How much slower than its rival a network may be that counts as equally fast; less than this cannot be told apart."""


def measured(spec: ModelSpec, shapes: Sequence[Widths], seconds: float) -> list[dict[str, Any]]:
    """Return bytes and latency of each shape, measured in turn for about ``seconds`` in all."""
    deployer = Deployer(spec)
    opened = [deployer.open(widths) for widths in shapes]
    latencies = measure([session for session, _ in opened], seconds)
    return [
        {
            "shape": engine.shape_digest(spec, widths),
            "model": spec.architecture,
            "bytes": size,
            "p50": latency.p50,
            "p95": latency.p95,
            "runs": latency.runs,
        }
        for widths, (_, size), latency in zip(shapes, opened, latencies, strict=True)
    ]


def matches(settings: Settings, seed: int, seconds: float) -> dict[str, dict[str, float]]:
    """Find, for each arm of ours that has a rival, the largest width multiplier with which it is no slower.

    Latency over width is a staircase, on which a wider network may be the faster one, so all that differ are measured, the
    rivals among them. The ``ratio`` of the two latencies says how near the match is; an arm that nothing matches is left out.
    """
    family = settings.family
    point = Point(family, settings.sparsity, seed, {})
    rivals = {share: dict(engine.uniform(family, share).widths) for share in RIVALS}
    ladder = {name: _ladder(arm, point) for name, arm in ARMS.items() if arm.rival is not None}
    shapes = [*rivals.values(), *(widths for found in ladder.values() for widths in found.values())]
    distinct = {engine.shape_digest(family.spec, widths): widths for widths in shapes}
    p50 = {row["shape"]: row["p50"] for row in measured(family.spec, list(distinct.values()), seconds)}
    found: dict[str, dict[str, float]] = {}
    for name, candidates in ladder.items():
        rival = p50[engine.shape_digest(family.spec, rivals[ARMS[name].rival or 1.0])]
        ratios = {alpha: p50[engine.shape_digest(family.spec, widths)] / rival for alpha, widths in candidates.items()}
        equal = [alpha for alpha, ratio in ratios.items() if ratio <= SLOWER]
        if equal:
            found[name] = {"multiplier": max(equal), "ratio": round(ratios[max(equal)], 4)}
    return found


def _ladder(arm: Arm, point: Point) -> dict[float, Widths]:
    """Return the widths of an arm by width multiplier, from the rival's own upwards: ours is never slower at that."""
    designs = {alpha: arm.within(point, alpha) for alpha in LADDER if alpha >= (arm.rival or 0.0)}
    return {alpha: dict(design.widths) for alpha, design in designs.items() if design is not None}
