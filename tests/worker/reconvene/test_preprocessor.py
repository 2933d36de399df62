from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.core.errors import BundleError, ErrorCode
from reconvene_agent.worker.models import registry
from reconvene_agent.worker.models.weights import SeedWeights, WeightSource
from reconvene_agent.worker.reconvene import preprocessor
from reconvene_agent.worker.reconvene.criteria.subject import Subject
from reconvene_agent.worker.reconvene.method import structure_of
from support.models import TINY_RESNET, TINY_VGG, architecture


def subject(spec: ModelSpec, weights: WeightSource) -> Subject:
    dense, structure = registry.build(spec), structure_of(spec)
    return Subject(preprocessor.prunable(dense, structure), weights, 0, lambda: registry.build(spec), spec.input)


def test_the_prunable_weights_are_all_but_those_of_the_answer_in_the_models_order() -> None:
    shapes = preprocessor.prunable(registry.build(TINY_VGG), structure_of(TINY_VGG))
    assert list(shapes)[:2] == ["features.conv1_1", "features.conv2_1"]
    assert len(shapes) == 8
    assert shapes["features.conv1_1"] == (64, 1, 3, 3)
    assert "classifier" not in shapes
    spec = ModelSpec("mlp", (24,), 5)
    assert len(preprocessor.prunable(registry.build(spec), structure_of(spec))) == 3


def test_a_model_of_nothing_but_its_answer_has_nothing_to_prune() -> None:
    with architecture(lambda _: nn.Sequential(nn.Flatten(), nn.Linear(4, 2))) as name:
        spec = ModelSpec(name, (1, 2, 2), 2)
        with pytest.raises(BundleError, match="nothing to prune"):
            preprocessor.prunable(registry.build(spec), structure_of(spec))


def test_the_global_share_of_weights_is_kept() -> None:
    sparsities = (0.0, 0.37, 0.9)
    for sparsity, layers in zip(
        sparsities, preprocessor.densities(subject(TINY_RESNET, SeedWeights(3)), "magnitude", sparsities), strict=True
    ):
        total = sum(layer.weights for layer in layers)
        assert sum(layer.kept for layer in layers) == round((1 - sparsity) * total)
        assert all(0 <= layer.density <= 1 for layer in layers)


def test_weights_that_are_no_numbers_are_the_bundles_fault() -> None:
    class Broken(SeedWeights):
        shipped = True

        def weight(self, name: str, shape: tuple[int, ...]) -> Tensor:
            return torch.full(shape, float("nan")) if name.startswith("stages.1.0.conv2") else super().weight(name, shape)

    with pytest.raises(BundleError, match=r"stages\.1\.0\.conv2 holds values that are not finite") as caught:
        preprocessor.densities(subject(TINY_RESNET, Broken(0)), "magnitude", [0.5])
    assert caught.value.code is ErrorCode.BAD_BUNDLE
