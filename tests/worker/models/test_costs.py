from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.worker.models import costs, registry
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
        found = costs.count(registry.build(spec), spec, batch=7, mask_sizes={"conv": 100})
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
    # Most is alive while the first convolution reads the image; later it is the sum and its two terms.
    assert found.memory == weights + 4 * max(image + channels, 3 * channels)
    # Weights, gradients and momentum; then every tensor of the graph, the answer being handed out once more.
    every = image + 5 * channels + 4 + 5 + 5
    assert found.training_memory == 3 * 4 * found.params + 7 * 4 * every


@pytest.mark.parametrize(("architecture_name", "expected"), [("vgg16", 313_201_664), ("resnet20", 40_551_424 + 262_144)])
def test_operations_of_known_models(architecture_name: str, expected: int) -> None:
    spec = ModelSpec(architecture_name, (3, 32, 32), 10)
    found = costs.count(registry.build(spec), spec, batch=1, mask_sizes={})
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


DENSE = designed(TINY_RESNET, 0.0).widths


@settings(max_examples=12)
@given(st.integers(1, 16), st.integers(0, 16), st.integers(1, 256), st.integers(0, 256))
def test_memory_grows_with_width_and_batch(width: int, wider: int, batch: int, larger: int) -> None:
    def cost(narrowed: int, images: int) -> costs.Costs:
        widths = {name: min(each, narrowed) if each != 5 else each for name, each in DENSE.items()}
        return costs.count(narrow(TINY_RESNET, widths), TINY_RESNET, images, {})

    one, more = cost(width, batch), cost(min(16, width + wider), batch + larger)
    assert one.memory <= more.memory
    assert one.training_memory <= more.training_memory
    assert one.file_bytes <= more.file_bytes
    assert one.macs <= more.macs
    assert cost(width, batch).memory == cost(width, batch + larger).memory  # inference is always of one image
    if larger:
        assert one.training_memory < cost(width, batch + larger).training_memory


def test_masks_change_no_cost_but_the_count_of_what_is_not_zero() -> None:
    model = registry.build(TINY_VGG)
    plain = costs.count(model, TINY_VGG, 8, {})
    masked = costs.count(model, TINY_VGG, 8, {"features.conv3_1": 1000})
    assert masked.nonzero == plain.nonzero - (256 * 128 * 9 - 1000)
    assert (masked.params, masked.file_bytes, masked.macs, masked.memory, masked.training_memory) == (
        plain.params,
        plain.file_bytes,
        plain.macs,
        plain.memory,
        plain.training_memory,
    )


def test_a_layer_used_twice_counts_twice_in_operations_and_once_in_parameters() -> None:
    class Twice(nn.Module):
        def __init__(self, spec: ModelSpec) -> None:
            super().__init__()
            self.conv = nn.Conv2d(spec.input[0], 3, 1, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(self.conv(x))

    with architecture(Twice) as name, torch.device("meta"):
        spec = ModelSpec(name, (3, 2, 2), 3)
        found = costs.count(registry.build(spec), spec, 1, {})
    assert (found.params, found.macs) == (9, 2 * 9 * 4)
