from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from reconvene_agent.core.errors import BundleError, ErrorCode
from reconvene_agent.worker.models import registry
from reconvene_agent.worker.models.weights import SeedWeights
from reconvene_agent.worker.reconvene import preprocessor
from support.models import TINY_RESNET, TINY_VGG, opened


def test_the_prunable_weights_are_those_of_the_convolutions_in_the_models_order() -> None:
    shapes = preprocessor.prunable(registry.build(TINY_VGG))
    assert list(shapes)[:2] == ["features.conv1_1", "features.conv2_1"]
    assert len(shapes) == 8
    assert shapes["features.conv1_1"] == (64, 1, 3, 3)
    assert "classifier" not in shapes


def test_a_model_without_convolutions_has_nothing_to_prune() -> None:
    with pytest.raises(BundleError, match="nothing to prune"):
        preprocessor.prunable(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))


def test_the_global_share_of_weights_is_kept() -> None:
    dense = registry.build(TINY_RESNET)
    for sparsity, layers in zip(
        (0.0, 0.37, 0.9), preprocessor.densities(dense, SeedWeights(3), "magnitude", (0.0, 0.37, 0.9)), strict=True
    ):
        total = sum(layer.weights for layer in layers)
        assert sum(layer.kept for layer in layers) == round((1 - sparsity) * total)
        assert all(0 <= layer.density <= 1 for layer in layers)


def test_weights_that_are_no_numbers_are_the_bundles_fault() -> None:
    class Broken(SeedWeights):
        def weight(self, name: str, shape: tuple[int, ...]) -> Tensor:
            return torch.full(shape, float("nan")) if name.startswith("stages.1.0.conv2") else super().weight(name, shape)

    with pytest.raises(BundleError, match=r"stages\.1\.0\.conv2 holds weights that are not finite") as caught:
        preprocessor.densities(registry.build(TINY_RESNET), Broken(0), "magnitude", [0.5])
    assert caught.value.code is ErrorCode.BAD_BUNDLE


def test_another_seed_gives_other_densities() -> None:
    dense = registry.build(TINY_RESNET)
    one, other = (preprocessor.densities(dense, opened(TINY_RESNET, seed).weights, "magnitude", [0.9]) for seed in (0, 1))
    assert one != other
