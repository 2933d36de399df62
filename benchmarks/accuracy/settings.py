"""What one set of results depends on, and the presets where nothing is said."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch

from accuracy.engine import Family, spec_of
from reconvene_agent.worker.data.dataset import Dataset, Part
from reconvene_agent.worker.models.initial import generator

CPU_EPOCHS = 4
CUDA_EPOCHS = 30
CPU_IMAGES = 4000
CPU_BASE = {"vgg16": 0.375, "resnet20": 1.0}
OTHER_CPU_BASE = 0.5
"""Share of each width that the dense network has, on a CPU: 24 to 192 channels in VGG-16; ResNet-20 is as small as it is."""
LEARNING_RATES = {"vgg16": 0.02, "resnet20": 0.1}
OTHER_LEARNING_RATE = 0.05
"""Peak of the schedule: of 0.2, 0.1, 0.05, 0.02 and 0.01 the one with which the *dense* network learns most from 5,000 images in
six epochs. At a rate that is too high for it, a dense network loses to whatever is narrower, and a comparison says nothing."""
CUDA_LEARNING_RATE = 0.1
"""What the field trains with where there are images and epochs enough."""
CPU_MULTIPLE = 4
CUDA_MULTIPLE = 8
"""Widths are rounded up to these, in every arm: latency over width is a staircase, and a network whose widths are no
multiples can be slower than a wider one. Eight would leave the small networks of a CPU hardly any widths to choose from."""


@dataclass(frozen=True)
class Settings:
    """All that a run's accuracy depends on but its arm and its seed; results of other settings are never mixed with them.

    Attributes:
        base: width multiplier of the dense network, from which every arm starts.
        multiple: what narrowed widths are rounded up to.
        classes: of the data.
        data: SHA-256 of the images trained on and judged by.
        learning_rate: the peak of the schedule, the same for all arms.
        device: ``cpu`` or ``cuda``, since they round differently.
    """

    model: str
    base: float
    multiple: int
    sparsity: float
    epochs: int
    images: int
    classes: int
    data: str
    learning_rate: float
    device: str

    @property
    def family(self) -> Family:
        return Family(spec_of(self.model, self.classes), self.base, self.multiple)

    def document(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def default_base(model: str, device: str) -> float:
    return 1.0 if device == "cuda" else CPU_BASE.get(model, OTHER_CPU_BASE)


def default_learning_rate(model: str, device: str) -> float:
    return CUDA_LEARNING_RATE if device == "cuda" else LEARNING_RATES.get(model, OTHER_LEARNING_RATE)


def subset(data: Dataset, images: int) -> Dataset:
    """Return the data with so many training images, a fixed random choice; 0 is all."""
    if not 0 < images < len(data.train):
        return data
    chosen = torch.randperm(len(data.train), generator=generator(0, "benchmark subset"))[:images].sort().values.numpy()
    return Dataset(Part(data.train.inputs[chosen], data.train.classes[chosen]), data.validation, data.labels, data.skipped)
