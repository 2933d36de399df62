"""Models of windows and of features learn as those of images do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from reconvene_agent.worker.data.dataset import Dataset, Part, Skipped
from support.training import Run, with_options

Build = Callable[[], nn.Module]
Turn = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def flat(windows: NDArray[np.float32]) -> NDArray[np.float32]:
    return windows.reshape(len(windows), -1)


class Wave(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 8, 5, padding=2, bias=False)
        self.norm = nn.BatchNorm1d(8)
        self.classifier = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(functional.relu(self.norm(self.conv(x))).mean(2))


def slow_and_fast(count: int, seed: int) -> Part:
    """Return windows of a slow or a fast wave, far from zero and in a unit of its own."""
    random = np.random.default_rng(seed)
    classes = np.arange(count) % 2
    time = np.arange(32) / 32 * 2 * np.pi
    waves = np.sin(time * (1 + 4 * classes[:, np.newaxis]) + random.uniform(0, 6, (count, 1)))
    windows = np.stack([1e4 + 1e3 * waves, 1e-5 * random.standard_normal(waves.shape)], axis=1)
    return Part(windows.astype(np.float32), classes.astype(np.int64))


@dataclass(frozen=True)
class Unpruned:
    module: nn.Module
    masks: dict[str, Tensor]


@pytest.mark.parametrize(
    ("build", "turn"),
    [(Wave, lambda x: x), (lambda: nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 2)), flat)],
    ids=["windows", "features"],
)
def test_signals_are_learnt_in_whatever_unit_they_come(build: Build, turn: Turn, tmp_path: Path) -> None:
    parts = [slow_and_fast(count, seed) for count, seed in ((200, 0), (60, 1))]
    signals = Dataset(*(Part(turn(part.inputs), part.classes) for part in parts), ("slow", "fast"), Skipped())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Unpruned(build(), {})
    run = Run(model, signals, tmp_path, with_options(epochs=12, augment="auto"))
    assert run.to_the_end().best_accuracy > 0.9
