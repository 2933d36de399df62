"""What the tests of the criteria share: subjects made of tensors, or of a model of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor, nn

from reconvene_agent.worker.models import initial
from reconvene_agent.worker.reconvene.criteria.subject import Sample, Subject


class Given:
    """Weights that a test made up, shipped as it were."""

    shipped = True

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = tensors

    def weight(self, name: str, shape: tuple[int, ...]) -> Tensor:
        assert tuple(self.tensors[name].shape) == shape
        return self.tensors[name].clone()

    def parameter(self, name: str, shape: tuple[int, ...]) -> Tensor:
        return self.weight(name, shape)

    def fill(self, model: nn.Module) -> nn.Module:
        return initial.materialize(model, 0, lambda name, _: self.tensors.get(name))


def no_model() -> nn.Module:
    raise AssertionError("this criterion needs no model")


def from_weights(layers: Mapping[str, Tensor]) -> Subject:
    """Return a subject of these prunable weights, by layer name, and nothing else."""
    shapes = {name: tuple(weight.shape) for name, weight in layers.items()}
    weights = Given({f"{name}.weight": weight for name, weight in layers.items()})
    return Subject(shapes, weights, 0, no_model, (1,))


def from_model(
    build: Callable[[], nn.Module],
    size: tuple[int, ...],
    tensors: Mapping[str, Tensor],
    sample: Sample | None = None,
    memory_mb: float | None = None,
) -> Subject:
    """Return a subject of a model of the test's own, with these parameters; its layer called ``answer`` is not prunable."""

    def on_meta() -> nn.Module:
        with torch.device("meta"):
            return build().eval()

    layers = {name: layer for name, layer in on_meta().named_modules() if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Linear))}
    shapes = {name: tuple(layer.weight.shape) for name, layer in layers.items() if name != "answer"}
    return Subject(shapes, Given(tensors), 0, on_meta, size, sample, memory_mb)


@pytest.fixture(scope="session")
def of_weights() -> Callable[[Mapping[str, Tensor]], Subject]:
    return from_weights


@pytest.fixture(scope="session")
def of_model() -> Callable[..., Subject]:
    return from_model
