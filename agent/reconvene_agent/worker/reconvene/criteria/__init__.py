"""Unstructured pruning-at-initialisation criteria: how many weights of each layer survive a global cut.

What such a criterion decides is each layer's density; which weights inside a layer survive hardly matters
(Frankle et al. 2021, arXiv 2009.08576; Su et al. 2020, arXiv 2009.11094). So a criterion answers with counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from reconvene_agent.worker.reconvene.criteria.gradients import grasp, snip
from reconvene_agent.worker.reconvene.criteria.layerwise import erk, random, uniform
from reconvene_agent.worker.reconvene.criteria.magnitude import magnitude
from reconvene_agent.worker.reconvene.criteria.subject import Kept, Subject
from reconvene_agent.worker.reconvene.criteria.synflow import synflow

CRITERIA: dict[str, Callable[[Subject, Sequence[float]], list[Kept]]] = {
    "magnitude": magnitude,
    "random": random,
    "uniform": uniform,
    "erk": erk,
    "synflow": synflow,
    "snip": snip,
    "grasp": grasp,
}

NEED_DATA = frozenset({"snip", "grasp"})
"""Criteria that score by the loss on local data."""
