"""Latency, apart from training: every distinct shape once, all of a model in turn, so that disturbances hit all alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from accuracy import engine
from accuracy.arms import ALPHAS, Point, ours
from accuracy.engine import Deployer, Family, Widths
from accuracy.settings import Settings
from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.worker.deploy.session import measure

LADDER = tuple(round(0.2 + 0.02 * step, 2) for step in range(41))
SLOWER = 1.03
"""How much slower than ours a network may be that counts as equally fast; less than this cannot be told apart."""


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
    """Find, for each of our multipliers, that of the widest uniformly narrower network that is no slower.

    Latency over width is a staircase, on which a wider network may be the faster one, so all that differ are measured, ours
    among them. The ``ratio`` of the two latencies says how near the match is.
    """
    family = settings.family
    point = Point(family, settings.sparsity, seed, {})
    targets = [dict(ours(point, alpha, "dense").widths) for alpha in ALPHAS]
    ladder = {engine.shape_digest(family.spec, widths): (share, widths) for share, widths in _narrower(family)}
    rows = measured(family.spec, [*targets, *(widths for _, widths in ladder.values())], seconds)
    rivals = [(share, row["p50"]) for (share, _), row in zip(ladder.values(), rows[len(targets) :], strict=True)]
    found: dict[str, dict[str, float]] = {}
    for alpha, row in zip(ALPHAS, rows, strict=False):
        ratios = [(share, p50 / row["p50"]) for share, p50 in rivals]
        equal = [pair for pair in ratios if pair[1] <= SLOWER]
        share, ratio = max(equal) if equal else min(ratios, key=lambda pair: pair[1])
        found[str(alpha)] = {"multiplier": share, "ratio": round(ratio, 4)}
    return found


def _narrower(family: Family) -> Iterator[tuple[float, Widths]]:
    for share in LADDER:
        yield share, dict(engine.uniform(family, share).widths)
