"""Results over seeds: one row for each arm of a model."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from accuracy.arms import ARMS, Arm
from accuracy.store import Record


@dataclass(frozen=True)
class Row:
    """Means over the seeds; ``accuracy`` and ``spread``, half the range over the seeds, are in percent.

    ``size``, ``p50`` and ``p95`` are None where nothing has been measured; ``multiplier`` is that of an arm with a rival.
    """

    arm: Arm
    seeds: int
    accuracy: float
    spread: float
    params: float
    nonzero: float
    macs: float
    size: float | None
    p50: float | None
    p95: float | None
    search_seconds: float
    multiplier: float | None
    diverged: int

    @property
    def short(self) -> str:
        """The label in the plot."""
        return self.arm.short if self.multiplier is None else f"{self.arm.short}, α {self.multiplier:g}"


def summarize(runs: Sequence[Record], latencies: Mapping[str, Record]) -> dict[str, Row]:
    """Return the rows of one model's runs, by the name of the arm, in the order of the arms."""
    rows = {}
    for name, arm in ARMS.items():
        mine = [run for run in runs if run["arm"] == name]
        if mine:
            rows[name] = _row(arm, mine, latencies)
    return rows


def _row(arm: Arm, runs: Sequence[Record], latencies: Mapping[str, Record]) -> Row:
    accuracies = [100.0 * run["accuracy"] for run in runs]
    known = [latencies[run["shape"]] for run in runs if run["shape"] in latencies]
    complete = len(known) == len(runs)

    def mean(name: str) -> float:
        return statistics.fmean(run[name] for run in runs)

    def measured(name: str) -> float | None:
        return statistics.fmean(row[name] for row in known) if complete else None

    return Row(
        arm=arm,
        seeds=len(runs),
        accuracy=statistics.fmean(accuracies),
        spread=(max(accuracies) - min(accuracies)) / 2,
        params=mean("params"),
        nonzero=mean("nonzero"),
        macs=mean("macs"),
        size=measured("bytes"),
        p50=measured("p50"),
        p95=measured("p95"),
        search_seconds=mean("search_seconds"),
        multiplier=runs[0]["match"],
        diverged=sum(run["diverged"] for run in runs),
    )
