from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.worker.deploy.export import Exporter
from reconvene_agent.worker.models import convnet1d, costs, initial, mlp, mobilenet, registry, vit
from reconvene_agent.worker.models.tracing import trace
from reconvene_agent.worker.reconvene.method import narrow
from support.models import TINY_RESNET, TINY_VGG, VGG16, architecture, designed, exporter, pruned


class Small(nn.Module):
    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.conv = nn.Conv2d(spec.input[0], 4, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False)
        self.classifier = nn.Linear(4, spec.classes)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm(self.conv(x)))
        return self.classifier((x + self.depthwise(x)).mean((2, 3)))


def test_costs_against_a_count_by_hand() -> None:
    with architecture(Small) as name:
        spec = ModelSpec(name, (3, 8, 6), 5)
        found = costs.count(registry.build(spec), spec, mask_sizes={"conv": 100})
    conv, norm, depthwise, classifier = 4 * 3 * 9 + 4, 2 * 4, 4 * 9, 4 * 5 + 5
    assert found.params == conv + norm + depthwise + classifier
    assert found.nonzero == found.params - 8
    places = 4 * 3  # of the image after a stride of 2
    assert found.macs == 4 * 3 * 9 * places + 4 * 9 * places + 4 * 5
    # Deployed, the depthwise convolution has a bias as well, and of the nodes conv, relu, depthwise, add, mean, linear
    # remain, next to the input and the output.
    weights = 4 * (conv + depthwise + 4 + classifier)
    assert found.file_bytes == weights + costs.NODE_BYTES * 8
    image, channels = 3 * 8 * 6, 4 * places
    loaded = 4 * (2.6 * (conv + depthwise + 4) + 1.3 * classifier)
    # Most is alive while the first convolution reads the image; later it is the sum and its two terms.
    assert found.memory == costs.RUNTIME_BYTES + round(loaded) + 4 * max(image + channels, 3 * channels)
    # Every tensor of the graph, the answer being handed out once more.
    every = image + 5 * channels + 4 + 5 + 5
    training = found.training
    assert (training.weights, training.masks, training.saved) == (4 * found.params, 4 * 3 * 9, 4 * every)
    assert 0 < training.recomputed < training.saved


def test_training_takes_weights_gradients_momentum_and_the_best_so_far_beside_activations() -> None:
    found = costs.TrainingCosts(weights=100, masks=7, saved=50, recomputed=20)
    assert found.memory(3) == 4 * 100 + 7 + 3 * 50
    assert found.memory(3, recompute=True) == 4 * 100 + 7 + 3 * 20
    assert found.memory(3, average=True) == 5 * 100 + 7 + 3 * 50


@pytest.mark.parametrize(("architecture_name", "expected"), [("vgg16", 313_201_664), ("resnet20", 40_551_424 + 262_144)])
def test_operations_of_known_models(architecture_name: str, expected: int) -> None:
    spec = ModelSpec(architecture_name, (3, 32, 32), 10)
    found = costs.count(registry.build(spec), spec, mask_sizes={})
    assert found.macs == pytest.approx(expected, rel=0.001)


@pytest.mark.parametrize(
    ("spec", "sparsity", "tolerance"),
    [
        (VGG16, 0.9, 0.02),
        (TINY_VGG, 0.9, 0.02),
        (TINY_VGG, 0.999, 0.05),
        (TINY_RESNET, 0.0, 0.02),
        (TINY_RESNET, 0.9, 0.02),
        (TINY_RESNET, 0.999, 0.05),
    ],
)
def test_the_file_is_as_large_as_its_estimate(spec: ModelSpec, sparsity: float, tolerance: float) -> None:
    model = pruned(spec, sparsity)
    real = len(exporter(spec).to_onnx(model.module).SerializeToString())
    assert model.design.costs().file_bytes == pytest.approx(real, rel=tolerance)


def shallow(spec: ModelSpec) -> nn.Module:
    return vit.ViT(spec, width=96, depth=1, heads=3, patch=4)


@pytest.mark.parametrize(
    ("builder", "shape"),
    [(mlp.mlp, (24,)), (convnet1d.convnet1d, (6, 128)), (mobilenet.mobilenet_v2, (1, 16, 16)), (shallow, (3, 16, 16))],
)
def test_the_file_of_every_kind_of_model_is_as_large_as_its_estimate(
    builder: Callable[[ModelSpec], nn.Module], shape: tuple[int, ...]
) -> None:
    with architecture(builder) as name:
        spec = ModelSpec(name, shape, 6)
        model = registry.build(spec)
    estimate = costs.count(model, spec, {}).file_bytes
    real = len(Exporter(shape).to_onnx(initial.materialize(model, 0)).SerializeToString())
    assert estimate == pytest.approx(real, rel=0.02)


DENSE = designed(TINY_RESNET, 0.0).widths


@settings(max_examples=12)
@given(st.integers(1, 16), st.integers(0, 16), st.integers(1, 256), st.integers(0, 256))
def test_memory_grows_with_width_and_batch(width: int, wider: int, batch: int, larger: int) -> None:
    def cost(narrowed: int) -> costs.Costs:
        widths = {name: min(each, narrowed) if each != 5 else each for name, each in DENSE.items()}
        return costs.count(narrow(TINY_RESNET, widths), TINY_RESNET, {})

    one, more = cost(width), cost(min(16, width + wider))
    assert one.memory <= more.memory
    assert one.training.memory(batch) <= more.training.memory(batch + larger)
    assert one.training.memory(batch, recompute=True) <= one.training.memory(batch)
    assert one.file_bytes <= more.file_bytes
    assert one.macs <= more.macs


def test_masks_change_no_cost_but_the_count_of_what_is_not_zero_and_the_byte_that_each_of_them_takes_in_training() -> None:
    model = registry.build(TINY_VGG)
    plain = costs.count(model, TINY_VGG, {})
    masked = costs.count(model, TINY_VGG, {"features.conv3_1": 1000})
    assert masked.nonzero == plain.nonzero - (256 * 128 * 9 - 1000)
    assert (masked.params, masked.file_bytes, masked.macs, masked.memory) == (
        plain.params,
        plain.file_bytes,
        plain.macs,
        plain.memory,
    )
    assert masked.training.memory(8) == plain.training.memory(8) + 256 * 128 * 9


@pytest.mark.parametrize(
    ("architecture_name", "expected"),
    [("resnet18", 1.814e9), ("resnet50", 4.089e9), ("mobilenet_v2", 0.3008e9), ("vit_tiny", 1.25e9)],
)
def test_operations_of_known_models_for_imagenet(architecture_name: str, expected: float) -> None:
    spec = ModelSpec(architecture_name, (3, 224, 224), 1000)
    found = costs.count(registry.build(spec), spec, mask_sizes={})
    assert found.macs == pytest.approx(expected, rel=0.01)


class Signal(nn.Module):
    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.conv = nn.Conv1d(spec.input[0], 4, 3, stride=2, bias=False)
        self.norm = nn.BatchNorm1d(4)
        self.hidden = nn.Linear(4, 5, bias=False)
        self.norm2 = nn.BatchNorm1d(5)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm2(self.hidden(self.norm(self.conv(x)).mean(2)))


def test_costs_of_a_network_for_signals_against_a_count_by_hand() -> None:
    with architecture(Signal) as name:
        spec = ModelSpec(name, (2, 9), 5)
        found = costs.count(registry.build(spec), spec, mask_sizes={})
    assert found.params == 4 * 2 * 3 + 8 + 4 * 5 + 10
    assert found.macs == 4 * 2 * 3 * 4 + 4 * 5  # at four places, then at one
    # Both norms leave their layer a bias; input, convolution, mean, linear layer and output remain.
    assert found.file_bytes == 4 * (4 * 2 * 3 + 4 + 4 * 5 + 5) + costs.NODE_BYTES * 5


class Tokens(nn.Module):
    """Seven tokens of width 6, in two heads of width 3."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.empty(1, *spec.input))
        self.norm = nn.LayerNorm(6)
        self.same = nn.GroupNorm(1, 7)
        self.query = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.query(self.same(self.norm(x + self.position)))
        heads = x.reshape(x.shape[0], x.shape[1], -1, 3).transpose(1, 2)
        return self.attend(heads).transpose(1, 2).flatten(2).mean(1)

    def attend(self, heads: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(heads, heads, value=heads)


class Multiplied(Tokens):
    """The same, with attention spelled out in three ways to multiply."""

    def attend(self, heads: Tensor) -> Tensor:
        weights = torch.softmax(heads @ heads.transpose(2, 3), -1)
        return torch.matmul(weights, heads)


class Methodical(Tokens):
    def attend(self, heads: Tensor) -> Tensor:
        return heads.matmul(heads.transpose(2, 3)).softmax(-1).matmul(heads)


@pytest.mark.parametrize("model", [Tokens, Multiplied, Methodical])
def test_costs_of_attention_against_a_count_by_hand(model: type[Tokens]) -> None:
    with architecture(model) as name:
        spec = ModelSpec(name, (7, 6), 6)
        traced = trace(registry.build(spec), spec.input)
        found = costs.count(registry.build(spec), spec, mask_sizes={})
    assert found.macs == 6 * 6 * 7 + 2 * (2 * 7 * 7 * 3)
    weights = 7 * 6 + 2 * 6 + 2 * 7 + 6 * 6 + 6
    assert found.params == weights
    assert found.file_bytes == 4 * weights + costs.NODE_BYTES * len(traced.shapes)


def test_attentions_scores_take_memory_although_no_tensor_of_the_graph_holds_them() -> None:
    with architecture(Tokens) as name:
        spec = ModelSpec(name, (7, 6), 6)
        found = costs.count(registry.build(spec), spec, mask_sizes={})
    tokens, scores = 7 * 6, 2 * 7 * 7
    # The heads, what comes of them, the scores and the weights made of these.
    assert found.memory == costs.RUNTIME_BYTES + round(costs.LOADED_COPIES * 4 * found.params) + 4 * (2 * tokens + 2 * scores)


def test_a_layer_used_twice_counts_twice_in_operations_and_once_in_parameters() -> None:
    class Twice(nn.Module):
        def __init__(self, spec: ModelSpec) -> None:
            super().__init__()
            self.conv = nn.Conv2d(spec.input[0], 3, 1, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(self.conv(x))

    with architecture(Twice) as name, torch.device("meta"):
        spec = ModelSpec(name, (3, 2, 2), 3)
        found = costs.count(registry.build(spec), spec, {})
    assert (found.params, found.macs) == (9, 2 * 9 * 4)
