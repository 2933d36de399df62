"""The gate: whether a release has earned its place, and what it lacks. Pure; the worker measures.

It is held against what serves now, judged on the same held-out inputs at the same time, against guessing, and against the
budget's limits on latency.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from reconvene_agent.core.budget import LATENCIES, Budget
from reconvene_agent.core.release import Latency
from reconvene_agent.core.signatures import Signature

ENOUGH_TO_TELL = 100
"""Held-out inputs from which on it is no accident when a model is no better than guessing."""
COLLAPSE = 0.1
"""So far below the rival's an accuracy is not merely worse: something has failed."""
NOISE = 1.05
"""By this factor may a latency be over its limit: no two measurements agree."""


class Rival(Struct, frozen=True):
    """What serves now, and its accuracy on today's held-out inputs; None where it cannot be held against it, and why."""

    version: str
    accuracy: float | None
    why_not: str = ""


class Evidence(Struct, frozen=True):
    """What is known of a release before it is promoted.

    Attributes:
        accuracy: of the deployed file on the held-out inputs, 0 to 1.
        recall: the same for each class, averaged over the ``classes``, so that a common class does not count for more.
        held_out: how many inputs there are.
        latency: of the deployed file, on this board.
    """

    accuracy: float
    recall: float
    classes: int
    held_out: int
    rival: Rival | None
    latency: Latency


def guesses(evidence: Evidence) -> bool:
    """Whether a model tells the classes apart no better than one that always names the same: by a standard error at most."""
    share = 1 / evidence.classes
    error = math.sqrt(share * (1 - share) / evidence.held_out)
    return evidence.held_out >= ENOUGH_TO_TELL and evidence.classes > 1 and evidence.recall <= share + error


def too_slow(latency: Latency, budget: Budget) -> list[str]:
    """Return by how much a latency is over the budget's limits, a line each."""
    found = []
    for name, measured in zip(LATENCIES, (latency.p95, latency.p50), strict=True):
        limit = getattr(budget, name)
        if limit is not None and measured > NOISE * limit.value:
            found.append(f"{name} is {measured:.4g} where {limit.value:.4g} is allowed ({limit.source})")
    return found


class Verdict(Struct, frozen=True):
    """What the gate says, and why.

    Attributes:
        margin: by how much the accuracy may be below the rival's.
        inaccurate, slow: why the release has not earned its place, a line each; empty when it has.
        collapsed: whether the accuracy is so low that something must have failed.
        signature: what did, where it was recognised.
    """

    evidence: Evidence
    margin: float
    inaccurate: tuple[str, ...] = ()
    slow: tuple[str, ...] = ()
    collapsed: bool = False
    signature: Signature | None = None

    @property
    def refused(self) -> tuple[str, ...]:
        return self.inaccurate + self.slow

    def document(self) -> dict[str, Any]:
        """Return what results tell of it."""
        evidence = self.evidence
        return {
            "accuracy": evidence.accuracy,
            "recall": round(evidence.recall, 5),
            "current": None if evidence.rival is None else msgspec.to_builtins(evidence.rival),
            "margin": self.margin,
            "refused": list(self.refused),
            "signature": None if self.signature is None else msgspec.to_builtins(self.signature),
        }

    def refusal(self, version: str, models: Path) -> str:
        """Return the one line for VERIFY_FAILED."""
        rival = self.evidence.rival
        serves = "nothing serves" if rival is None else f"{rival.version} goes on serving"
        if rival is not None and rival.version == version:
            return f"the model is the one that serves already, and it falls short: {'; '.join(self.refused)}"
        hint = "" if self.signature is None else f" ({self.signature.name}: {self.signature.text})"
        return (
            f"the new release has not earned its place, {serves}: {'; '.join(self.refused)}{hint}; "
            f"'reconvene-agent models promote {version} --models {models}' lets it serve all the same"
        )


def judge(evidence: Evidence, margin: float, budget: Budget) -> Verdict:
    """Return the verdict on a release."""
    guessed, rival = guesses(evidence), evidence.rival
    below = rival.accuracy - evidence.accuracy if rival is not None and rival.accuracy is not None else 0.0
    found = []
    if guessed:
        found.append(
            f"it recognises {evidence.recall:.1%} of each class on average, which is guessing among {evidence.classes} classes"
        )
    # The smallest step of an accuracy is one input; less than a thousandth of it is the arithmetic's.
    if rival is not None and rival.accuracy is not None and below > margin + 1e-3 / evidence.held_out:
        found.append(
            f"its accuracy of {evidence.accuracy:.1%} is {100 * below:.1f} points below the "
            f"{rival.accuracy:.1%} of {rival.version}, which serves now; {100 * margin:g} are allowed"
        )
    collapsed = bool(found) and (guessed or below > COLLAPSE)
    return Verdict(evidence, margin, tuple(found), tuple(too_slow(evidence.latency, budget)), collapsed)
