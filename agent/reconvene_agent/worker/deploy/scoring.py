"""What the gate wants to know of a deployed file, found out by running it: its accuracy, and that of what serves now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reconvene_agent.core import release as releases
from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.core.errors import AgentError
from reconvene_agent.core.gate import Rival
from reconvene_agent.core.protocol import Runtime
from reconvene_agent.core.release import Release
from reconvene_agent.core.shelf import Shelf
from reconvene_agent.worker.data.dataset import Part
from reconvene_agent.worker.data.scaling import normalize
from reconvene_agent.worker.deploy.session import Session, open_session

AT_ONCE = 16
"""Inputs in memory at a time: as many as hardly take more than one."""

Report = Callable[[float], None]


@dataclass(frozen=True)
class Score:
    """How right a deployed file is, 0 to 1: over all inputs, and on average over the ``classes`` that there are inputs of."""

    accuracy: float
    recall: float
    classes: int


def score(session: Session, part: Part, mean: Sequence[float], std: Sequence[float], report: Report) -> Score:
    """Let a deployed file classify a part's raw inputs, normalised by ``mean`` and ``std``; ``report`` hears the share done."""
    name = session.get_inputs()[0].name
    right = np.empty(len(part), dtype=np.bool_)
    for start in range(0, len(part), AT_ONCE):
        report(start / len(part))
        some = part.between(start, start + AT_ONCE)
        logits = session.run(None, {name: normalize(some.inputs, tuple(mean), tuple(std))})[0]
        right[start : start + AT_ONCE] = logits.argmax(1) == some.classes
    present = np.unique(part.classes)
    recalls = [right[part.classes == each].mean() for each in present]
    return Score(float(right.mean()), float(np.mean(recalls)), len(present))


def rival(models: Path, spec: ModelSpec, labels: tuple[str, ...], part: Part, runtime: Runtime, report: Report) -> Rival | None:
    """Return what serves below ``models`` and its accuracy on a part's inputs, or why there is none; None if nothing serves."""
    version = Shelf(models).serving
    if version is None:
        return None
    folder = models / version
    flaw = releases.flaw(folder)
    if flaw:
        return Rival(version, None, flaw)
    serving = releases.read(folder)
    other = _other(serving, spec, labels)
    if other:
        return Rival(version, None, other)
    try:
        session = open_session(folder / releases.ONNX, runtime)
    except AgentError as error:
        return Rival(version, None, error.message)
    return Rival(version, score(session, part, serving.mean, serving.std, report).accuracy)


def _other(serving: Release, spec: ModelSpec, labels: tuple[str, ...]) -> str:
    """Return why two models cannot be held against each other, if they cannot."""
    if serving.model.input != spec.input:
        return f"it takes inputs of {'×'.join(map(str, serving.model.input))}, not {'×'.join(map(str, spec.input))}"
    if serving.model.classes != spec.classes or serving.labels != labels:
        return "it tells other classes apart"
    return ""
