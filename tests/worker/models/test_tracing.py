from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, fx, nn

from reconvene_agent.core.errors import BundleError, ErrorCode
from reconvene_agent.worker.models import initial, registry
from reconvene_agent.worker.models.tracing import trace
from support.architectures import Recipe, recipes
from support.models import architecture


class Shapes(fx.Interpreter):
    """Runs a graph for real and remembers the shape of every tensor."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.seen: dict[str, tuple[int, ...]] = {}

    def run_node(self, n: fx.Node) -> object:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.seen[n.name] = tuple(result.shape)
        return result


def really(model: nn.Module, input_shape: tuple[int, int, int]) -> dict[str, tuple[int, ...]]:
    interpreter = Shapes(fx.symbolic_trace(model))
    interpreter.run(torch.zeros(1, *input_shape))
    return interpreter.seen


def named(shapes: dict[fx.Node, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {node.name: shape for node, shape in shapes.items()}


@settings(max_examples=25)
@given(recipes)
def test_the_shapes_found_without_computing_are_those_of_a_real_run(recipe: Recipe) -> None:
    with architecture(recipe.build):
        dense = registry.build(recipe.spec)
        without = named(trace(dense, recipe.spec.input).shapes)
        assert without == really(initial.materialize(dense, 0), recipe.spec.input)


@pytest.mark.parametrize("settings_", [{"stride": 2}, {"padding": 2}, {"dilation": 2}, {"padding": "same"}, {"padding": "valid"}])
@pytest.mark.parametrize("kernel", [1, 3, (3, 5)])
@pytest.mark.parametrize("mode", ["zeros", "reflect"])
def test_a_convolutions_formula_is_torchs(settings_: dict[str, object], kernel: object, mode: str) -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Conv2d(2, 3, kernel, padding_mode=mode, **settings_))
    found = named(trace(model, (2, 11, 12)).shapes)
    assert found == really(model.to_empty(device="cpu"), (2, 11, 12))


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize(
    "model",
    [
        Branching(),
        nn.Sequential(nn.Conv2d(5, 3, 1)),
        nn.Sequential(nn.Conv2d(3, 3, 9)),
        nn.Sequential(nn.MaxPool2d(16)),
        nn.Sequential(nn.Linear(7, 3)),
    ],
    ids=["depends on values", "other channels", "kernel too large", "pool too large", "other width"],
)
def test_a_model_that_cannot_be_followed_is_the_bundles_fault(model: nn.Module) -> None:
    with pytest.raises(BundleError, match="cannot be traced with an input of 3×8×8") as caught:
        trace(model.to("meta"), (3, 8, 8))
    assert caught.value.code is ErrorCode.BAD_BUNDLE
    assert len(caught.value.message.splitlines()) == 1


@pytest.mark.parametrize(
    "layer",
    [nn.ReLU(inplace=True), nn.BatchNorm2d(4, affine=False), nn.Hardswish(inplace=True), nn.Dropout(0.5, inplace=True)],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_that_work_in_place_or_hold_no_parameters_are_followed(layer: nn.Module) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.layer = layer.to("meta")

        def forward(self, x: Tensor) -> Tensor:
            x = self.layer(self.conv(x))
            x += 1
            return nn.functional.relu(x, inplace=True).mean((2, 3))

    with torch.device("meta"):
        traced = trace(Model().eval(), (3, 8, 8))
    assert traced.shapes[next(node for node in traced.shapes if node.target == "layer")] == (1, 4, 6, 6)
