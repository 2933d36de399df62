from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.core.options import MethodOptions
from reconvene_agent.worker.models import registry
from reconvene_agent.worker.reconvene.method import Reconvene, narrow
from support.models import TINY_RESNET, TINY_VGG, architecture, designed, images, opened, pruned

KNOBS = list(product(("mean", "weighted"), ("density", "sqrt"), ("masked", "dense", "shrink")))


@pytest.mark.parametrize(("average", "width", "sensitive"), KNOBS)
@pytest.mark.parametrize("spec", [TINY_VGG, TINY_RESNET], ids=["vgg11", "resnet20"])
def test_at_sparsity_0_the_dense_model_is_left_alone(spec: ModelSpec, average: str, width: str, sensitive: str) -> None:
    design = designed(spec, 0.0, average=average, width=width, sensitive=sensitive)
    assert {layer.verdict for layer in design.layers} == {"sensitive"}
    assert all(layer.width_after == layer.width_before for layer in design.layers)
    assert design.mask_sizes == {}
    dense = registry.build(spec)
    assert design.costs().params == design.costs().nonzero == sum(parameter.numel() for parameter in dense.parameters())


@pytest.mark.parametrize(("average", "width", "sensitive"), KNOBS)
@pytest.mark.parametrize("sparsity", [0.3, 0.9, 0.995])
def test_the_small_model_is_the_one_that_was_designed_and_runs(sparsity: float, average: str, width: str, sensitive: str) -> None:
    model = pruned(TINY_RESNET, sparsity, average=average, width=width, sensitive=sensitive)
    for layer in model.design.layers:
        weight = model.module.get_parameter(f"{layer.name}.weight")
        assert len(weight) == layer.width_after <= layer.width_before
        assert layer.width_after >= 4
        assert layer.width_after == layer.width_before or layer.verdict == "resilient" or sensitive == "shrink"
        if layer.name in model.design.mask_sizes:
            assert int(torch.count_nonzero(weight)) == model.design.mask_sizes[layer.name] == max(layer.kept, len(weight))
        else:
            assert int(torch.count_nonzero(weight)) == weight.numel()
    assert (sensitive == "masked") or not model.design.mask_sizes
    costs = model.design.costs()
    assert costs.params == sum(parameter.numel() for parameter in model.module.parameters())
    # Biases are zero at initialisation without being pruned; they are counted among what is not zero.
    zeros = sum(int((parameter == 0).sum()) for name, parameter in model.module.named_parameters() if "bias" not in name)
    assert costs.nonzero == costs.params - zeros
    assert model.module(images(TINY_RESNET, 3)).shape == (3, 5)


def test_the_sensitive_layers_mask_keeps_its_number_at_the_new_shape_and_never_more_than_there_is() -> None:
    design = designed(TINY_VGG, 0.9)
    small = narrow(TINY_VGG, design.widths)
    for layer in design.layers:
        weight = small.get_parameter(f"{layer.name}.weight")
        size = weight.numel()
        if layer.verdict == "sensitive":
            assert design.mask_sizes.get(layer.name, size) == min(max(layer.kept, len(weight)), size)
        else:
            assert layer.name not in design.mask_sizes


def test_the_same_seed_gives_the_same_model_and_another_one_does_not() -> None:
    one, same, other = (pruned(TINY_RESNET, 0.8, seed) for seed in (1, 1, 2))
    assert one.design == same.design
    assert all(torch.equal(a, b) for a, b in zip(one.module.parameters(), same.module.parameters(), strict=True))
    assert all(torch.equal(one.masks[name], same.masks[name]) for name in one.masks)
    assert not torch.equal(one.module.get_parameter("conv.weight"), other.module.get_parameter("conv.weight"))


def test_building_does_not_depend_on_torchs_own_random_numbers() -> None:
    torch.manual_seed(1)
    one = pruned(TINY_RESNET, 0.8).module.state_dict()
    torch.manual_seed(2)
    other = pruned(TINY_RESNET, 0.8).module.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_layer_of_unchanged_shape_keeps_its_initial_weights_and_a_changed_one_is_drawn_for_its_new_fan_in() -> None:
    model = pruned(TINY_VGG, 0.9, sensitive="dense").module.state_dict()
    dense = opened(TINY_VGG).dense().state_dict()
    changed = [name for name, tensor in model.items() if tensor.shape != dense[name].shape and tensor.dim() == 4]
    assert changed
    for name, tensor in model.items():
        if tensor.shape == dense[name].shape:
            assert torch.equal(tensor, dense[name]), name
    for name in changed:
        tensor = model[name]
        expected = math.sqrt(2 / tensor[0].numel())
        assert tensor.std().item() == pytest.approx(expected, rel=4 / math.sqrt(2 * tensor.numel())), name
        assert tensor.mean().item() == pytest.approx(0, abs=4 * expected / math.sqrt(tensor.numel())), name


def test_the_minimum_width_is_the_users() -> None:
    assert min(layer.width_after for layer in designed(TINY_RESNET, 0.995, min_width=1).layers) == 1
    assert min(layer.width_after for layer in designed(TINY_RESNET, 0.995, min_width=9).layers) == 9


def test_designs_for_several_sparsities_are_those_for_each() -> None:
    reconvene = Reconvene(opened(TINY_RESNET), MethodOptions())
    assert reconvene.design([0.9, 0.0, 0.5]) == [designed(TINY_RESNET, sparsity) for sparsity in (0.9, 0.0, 0.5)]


class Mixed(nn.Module):
    """Every kind of convolution that a width can depend on: plain, depthwise, grouped, held by what follows, and unused."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.first = nn.Conv2d(spec.input[0], 32, 3, padding=1)
        self.depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.point = nn.Conv2d(32, 64, 1)
        self.held = nn.Conv2d(64, 64, 3, padding=1)
        self.grouped = nn.Conv2d(64, 64, 3, padding=1, groups=16)
        self.last = nn.Conv2d(64, 64, 3, padding=1)
        self.unused = nn.Conv2d(64, 8, 1)
        self.classifier = nn.Linear(64, spec.classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.point(self.depthwise(self.first(x)).relu()).softmax(1)
        return self.classifier(self.last(self.grouped(self.held(x)).relu()).relu().mean((2, 3)))


def test_a_sparsity_that_was_scored_once_is_not_scored_again() -> None:
    shares: list[float] = []
    method = Reconvene(opened(TINY_VGG), MethodOptions(criterion="synflow"), report=shares.append)
    first = method.design([0.5, 0.9])
    scored = len(shares)
    assert scored > 0
    assert method.design([0.9, 0.5, 0.9]) == [first[1], first[0], first[1]]
    assert len(shares) == scored
    method.design([0.9, 0.7])
    assert len(shares) > scored


def test_followers_held_and_unused_convolutions_are_reported_with_the_width_that_they_have() -> None:
    with architecture(Mixed) as name:
        spec = ModelSpec(name, (3, 8, 8), 4)
        model = pruned(spec, 0.9)
        layers = {layer.name: layer for layer in model.design.layers}
        assert layers["depthwise"].width_after == layers["first"].width_after
        assert (layers["point"].width_after, layers["unused"].width_after) == (64, 8)
        assert layers["point"].frozen == "is normalised by softmax"
        assert layers["grouped"].width_after == layers["held"].width_after < 64
        assert layers["grouped"].width_after % 4 == 0  # whole blocks of four
        assert layers["last"].width_after < 64
        for layer in layers.values():
            assert len(model.module.get_parameter(f"{layer.name}.weight")) == layer.width_after
        assert model.module(images(spec, 2)).shape == (2, 4)


def test_a_resilient_layer_that_is_held_keeps_its_mask_in_place_of_its_width() -> None:
    with architecture(Mixed) as name:
        model = pruned(ModelSpec(name, (3, 8, 8), 4), 0.9, criterion="uniform")
        held = next(layer for layer in model.design.layers if layer.name == "point")
        assert int(torch.count_nonzero(model.module.get_parameter("point.weight"))) == max(held.kept, 64)


@pytest.mark.parametrize("multiplier", [0.9, 0.5, 0.2])
def test_the_width_multiplier_narrows_every_free_width_before_anything_is_scored(multiplier: float) -> None:
    design = designed(TINY_VGG, 0.0, width_multiplier=multiplier)
    for layer in design.layers:
        assert layer.width_after == math.ceil(multiplier * layer.width_before - 1e-9)
    dense = designed(TINY_VGG, 0.0)
    assert sum(layer.weights for layer in design.layers) < sum(layer.weights for layer in dense.layers)


def test_the_multiplied_model_is_scored_as_a_model_of_that_width() -> None:
    narrower = designed(TINY_VGG, 0.9, width_multiplier=0.5)
    total = sum(layer.weights for layer in narrower.layers)
    assert sum(layer.kept for layer in narrower.layers) == round(0.1 * total)


def test_the_trunk_of_a_transformer_is_kept_unless_asked_for() -> None:
    spec = ModelSpec("vit_tiny", (3, 16, 16), 4)
    options = {"sensitive": "shrink", "width": "sqrt"}
    kept = {layer.name: layer for layer in designed(spec, 0.9, **options).layers}
    asked = {layer.name: layer for layer in designed(spec, 0.9, trunk="prune", **options).layers}
    assert kept["patches"].width_after == 192
    assert "trunk = keep" in kept["patches"].frozen
    assert asked["patches"].width_after < 192
    model = pruned(spec, 0.9, trunk="prune", **options)
    assert model.module(images(spec, 2)).shape == (2, 4)
