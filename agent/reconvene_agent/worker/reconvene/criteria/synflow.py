"""SynFlow: iterative synaptic flow pruning, without data and without ever holding the dense model.

Tanaka et al. 2020 (arXiv 2006.05467). With every weight replaced by its magnitude and an input of ones, the sum R of the
outputs is a sum over all paths through the net; a weight's score |w · ∂R/∂w| is the share of them that pass through it. Weights
are removed in many small cuts, with scores anew after each, so that no layer ever loses its last path.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from reconvene_agent.worker.models.tracing import trace
from reconvene_agent.worker.reconvene.criteria.cut import Cuts, Histogram
from reconvene_agent.worker.reconvene.criteria.flow import Flow
from reconvene_agent.worker.reconvene.criteria.magnitudes import Magnitudes
from reconvene_agent.worker.reconvene.criteria.subject import Kept, Subject

CUTS_PER_DECADE = 20
"""Cuts on the way to a tenth of the weights, each keeping the same share of what is left (the paper's algorithm 1).

The paper takes 100 to any sparsity; the densities of VGG-16 and ResNet-20 are then the same within 0.02, at five times the cost.
"""


def synflow(subject: Subject, sparsities: Sequence[float]) -> list[Kept]:
    """Return the counts at each sparsity, all on one way to the highest.

    One layer's weights are in memory at a time, one bit for each weight, and the activations of one input; where memory
    allows, the weights are kept so that they need not be read or drawn again for each cut.

    Raises:
        ValueError: a score is not a number, or no path leads through the model.
    """
    try:
        return _prune(subject, sparsities, torch.float32)
    except OverflowError:
        # Very deep nets multiply more magnitudes than a float32 can hold.
        return _prune(subject, sparsities, torch.float64)


def schedule(fewest: int, total: int) -> list[int]:
    """Return how many weights are left after each cut, down to the last that leaves more than ``fewest``.

    The cuts on the way to one sparsity are also the first of those to a higher one, so that no sparsity's result depends on
    what else is asked for.
    """
    kept: list[int] = []
    while (left := round(total * 10 ** (-(len(kept) + 1) / CUTS_PER_DECADE))) > fewest:
        kept.append(left)
    return kept


def _prune(subject: Subject, sparsities: Sequence[float], dtype: torch.dtype) -> list[Kept]:
    sizes = subject.sizes
    total = sum(sizes.values())
    asked = [subject.keep(sparsity) for sparsity in sparsities]
    found: dict[int, Kept] = {total: dict(sizes), 0: dict.fromkeys(sizes, 0)}
    wanted = set(asked) - found.keys()
    steps = [*schedule(min(wanted), total), 0] if wanted else []
    left = Magnitudes(subject, dtype)
    flow = Flow(trace(subject.model(), subject.input), left, subject.weights, dtype)
    for done, step in enumerate(steps):
        subject.report(done / len(steps))
        if not flow.run():
            raise OverflowError if dtype is torch.float32 else ValueError("synflow finds no path through the model")
        histograms = {name: Histogram(flow.scores(name), name) for name in sizes}
        due = sorted(keep for keep in wanted - found.keys() if keep >= step)
        if due:
            cuts = Cuts(histograms, due)
            for name in sizes:
                cuts.show(name, flow.scores(name))
            found.update(zip(due, cuts.kept(), strict=True))
        if step:
            # On the way a bin's width more or less does not matter: the scores change with each cut.
            (floor,) = Cuts(histograms, [step]).floors()
            for name in sizes:
                left.keep(name, flow.scores(name) >= floor)
    return [found[keep] for keep in asked]
