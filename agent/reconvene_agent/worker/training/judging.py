"""How right a model is."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from reconvene_agent.worker.data.dataset import Part


def accuracy(answer: Callable[[Part], Tensor], part: Part, at_once: int, report: Callable[[float], None]) -> float:
    """Return the share of a part's inputs (0 to 1) that are classified rightly.

    ``answer`` returns the logits (N, classes) for some of them, ``at_once`` at most. ``report`` hears the share of inputs done
    before each batch, since on a small board many of them take long.
    """
    right = 0
    with torch.inference_mode():
        for start in range(0, len(part), at_once):
            report(start / len(part))
            some = part.between(start, start + at_once)
            right += int((answer(some).argmax(1).cpu() == torch.from_numpy(some.classes)).sum())
    return right / len(part)
