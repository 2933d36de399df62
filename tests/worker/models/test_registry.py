from __future__ import annotations

import pytest
import torch
from torch import nn

from reconvene_agent.core.architectures import ARCHITECTURES
from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.core.errors import BundleError, ErrorCode
from reconvene_agent.worker.models import initial, registry
from reconvene_agent.worker.models.tracing import trace
from reconvene_agent.worker.reconvene import postprocessor
from reconvene_agent.worker.reconvene.groups import find_groups
from support.models import VGG16

INPUTS = [(1, 1, 1), (1, 8, 8), (3, 28, 28), (3, 33, 47), (3, 64, 64)]


def size(architecture: str, classes: int = 10) -> int:
    model = registry.build(ModelSpec(architecture, (3, 32, 32), classes))
    return sum(parameter.numel() for parameter in model.parameters())


def test_the_light_table_of_names_is_that_of_the_builders() -> None:
    assert list(registry.BUILDERS) == list(ARCHITECTURES)


def test_the_dense_models_have_the_published_sizes() -> None:
    assert size("vgg16") == 14_724_042
    assert size("vgg11") == 9_228_362
    assert size("vgg19") == 20_035_018
    # He et al. give 0.27 M and 0.85 M; the 1×1 convolutions of two shortcuts come on top.
    assert size("resnet20") == 269_722 + 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64 == 272_474
    assert size("resnet56") == 853_018 + 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64 == 855_770


def test_building_takes_no_memory_for_weights() -> None:
    model = registry.build(VGG16)
    assert all(tensor.is_meta for tensor in model.state_dict().values())
    assert not model.training


@pytest.mark.parametrize("input_shape", INPUTS, ids=lambda shape: "x".join(map(str, shape)))
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_takes_any_input_and_any_number_of_classes(
    architecture: str, input_shape: tuple[int, int, int]
) -> None:
    classes = 2 + 7 * INPUTS.index(input_shape)
    model = registry.build(ModelSpec(architecture, input_shape, classes))
    traced = trace(model, input_shape)
    assert traced.shapes[next(reversed(traced.shapes))] == (1, classes)
    groups = find_groups(traced)
    narrow = postprocessor.resize(model, groups, [group.width if group.frozen else 4 for group in groups])
    real = initial.materialize(narrow, seed=0)
    with torch.inference_mode():
        assert real(torch.zeros(3, *input_shape)).shape == (3, classes)
    assert real.train()(torch.zeros(2, *input_shape)).shape == (2, classes)


def test_the_classes_change_the_classifier_alone() -> None:
    one, other = (registry.build(ModelSpec("resnet20", (3, 8, 8), classes)).state_dict() for classes in (2, 100))
    assert {name for name in one if one[name].shape != other[name].shape} == {"classifier.weight", "classifier.bias"}


def test_an_architecture_that_is_not_known_is_refused_with_those_that_are() -> None:
    with pytest.raises(BundleError, match=r"'vgg17' is not known here; there are: vgg11, vgg16") as caught:
        registry.build(ModelSpec("vgg17", (3, 32, 32), 10))
    assert caught.value.code is ErrorCode.BAD_BUNDLE


def test_pools_that_would_leave_nothing_of_the_image_are_left_out() -> None:
    def pools(side: int) -> int:
        model = registry.build(ModelSpec("vgg16", (1, side, side), 2))
        return sum(isinstance(layer, nn.MaxPool2d) for layer in model.modules())

    assert [pools(side) for side in (1, 2, 8, 32, 64)] == [0, 1, 3, 5, 5]
