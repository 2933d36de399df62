"""A model and data small enough to train in a moment: two convolutions on a few digits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pytest
from torch import Tensor, nn
from torch.nn import functional

from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.core.options import TrainingOptions
from reconvene_agent.worker.data.dataset import Dataset, Part, Skipped
from reconvene_agent.worker.reconvene.method import PrunedModel
from reconvene_agent.worker.training.learner import Learner
from reconvene_agent.worker.training.settings import Settings
from support.models import architecture, pruned
from support.pictures import digits


class Net(nn.Module):
    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.one = nn.Conv2d(spec.input[0], 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.two = nn.Conv2d(8, 32, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(32)
        self.classifier = nn.Linear(32, spec.classes)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(functional.relu(self.norm(self.one(x))), 2)
        return self.classifier(functional.relu(self.norm2(self.two(x))).mean((2, 3)))


def part(start: int, stop: int) -> Part:
    x, y = digits(stop)
    return Part(np.ascontiguousarray(x[start:, np.newaxis]), y[start:].astype(np.int64))


@pytest.fixture(scope="session")
def data() -> Dataset:
    return Dataset(part(0, 150), part(150, 200), (), Skipped())


@pytest.fixture(scope="module")
def fresh() -> Iterator[Callable[[], PrunedModel]]:
    """Return what makes the same untrained small model again and again."""
    with architecture(Net, "two-convolutions") as name:
        yield partial(pruned, ModelSpec(name, (1, 8, 8), 10), 0.8)


Learners = Callable[..., Learner]


@pytest.fixture
def learner(fresh: Callable[[], PrunedModel], data: Dataset) -> Learners:
    """Return what makes a learner of an untrained model; settings and options by name."""

    def make(
        model: PrunedModel | None = None, data: Dataset = data, cuts: tuple[str, ...] = (), micro_batch: int = 64, **more: object
    ) -> Learner:
        known = {name: more.pop(name) for name in ("recompute", "spare", "precision", "channels_last") if name in more}
        settings = Settings(epochs=1, micro_batch=micro_batch, **known)  # type: ignore[arg-type]
        return Learner(model or fresh(), data, TrainingOptions(**{"augment": "none", **more}), settings, cuts)  # type: ignore[arg-type]

    return make


@pytest.fixture
def net(fresh: Callable[[], PrunedModel]) -> PrunedModel:
    return fresh()
