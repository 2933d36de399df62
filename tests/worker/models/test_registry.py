from __future__ import annotations

import pytest
import torch
from torch import nn

from reconvene_agent.core.architectures import ARCHITECTURES
from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.core.errors import BundleError, ErrorCode
from reconvene_agent.worker.models import initial, registry, vit
from reconvene_agent.worker.models.tracing import trace
from reconvene_agent.worker.reconvene import postprocessor
from reconvene_agent.worker.reconvene.groups import find_groups
from support.models import VGG16
from support.models import architecture as made

INPUTS: dict[str, list[tuple[int, ...]]] = {
    "image": [(1, 1, 1), (1, 8, 8), (3, 28, 28), (3, 33, 47), (3, 64, 64)],
    "window": [(1, 1), (1, 7), (6, 128), (3, 1001)],
    "features": [(1,), (24,), (561,)],
}
# Height and width must be made of patches.
PATCHED = [(1, 4, 4), (3, 32, 32), (2, 8, 28), (3, 80, 96)]
CASES = [
    (name, shape)
    for name, architecture in ARCHITECTURES.items()
    for shape in (PATCHED if name.startswith("vit") else INPUTS[architecture.input])
]


def size(architecture: str, classes: int = 10, input_shape: tuple[int, ...] = (3, 32, 32)) -> int:
    model = registry.build(ModelSpec(architecture, input_shape, classes))
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


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("resnet18", 11_689_512),
        ("resnet50", 25_557_032),
        ("mobilenet_v2", 3_504_872),
        # DeiT-tiny's 5,717,416 without its class token and the position of that.
        ("vit_tiny", 5_717_416 - 192 - 192),
    ],
)
def test_the_dense_models_for_imagenet_have_the_published_sizes(architecture: str, expected: int) -> None:
    assert size(architecture, 1000, (3, 224, 224)) == expected


def test_a_vision_transformer_of_another_size() -> None:
    def base(spec: ModelSpec) -> nn.Module:
        return vit.ViT(spec, width=768, depth=12, heads=12, patch=16)

    with made(base) as name:
        # ViT-B/16's 86,567,656 without its class token and the position of that.
        assert size(name, 1000, (3, 224, 224)) == 86_567_656 - 768 - 768


def test_a_perceptron_and_a_network_for_signals_have_the_size_of_their_layers() -> None:
    mlp = 24 * 512 + 512 * 256 + 256 * 128 + 2 * (512 + 256 + 128) + 128 * 10 + 10
    assert size("mlp", 10, (24,)) == mlp
    convnet = 5 * (6 * 64 + 64 * 64 + 64 * 128 + 128 * 128 + 128 * 256) + 2 * (64 + 64 + 128 + 128 + 256) + 256 * 6 + 6
    assert size("convnet1d", 6, (6, 128)) == convnet


@pytest.mark.parametrize("architecture", ["resnet18", "resnet50", "mobilenet_v2"])
def test_small_images_are_not_shrunk_at_once(architecture: str) -> None:
    def last(side: int) -> int:
        """Return the side of what the classifier averages."""
        traced = trace(registry.build(ModelSpec(architecture, (3, side, side), 10)), (3, side, side))
        return [shape for shape in traced.shapes.values() if len(shape) == 4][-1][2]

    assert (last(32), last(63), last(64), last(224)) == (4, 8, 2, 7)


@pytest.mark.parametrize("shape", [(3, 30, 32), (3, 32, 2), (1, 100, 112)])
def test_an_image_that_patches_do_not_fill_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(BundleError, match=r"vit_tiny cuts an image into patches of (4×4|16×16), which .* is not made of"):
        registry.build(ModelSpec("vit_tiny", shape, 10))


def test_a_transformers_heads_may_be_fewer_than_it_was_built_with() -> None:
    with torch.device("meta"):
        attention = vit.Attention(12, 3)
        for layer in (attention.query, attention.key, attention.value):
            layer.weight = nn.Parameter(torch.empty(8, 12))
            layer.bias = nn.Parameter(torch.empty(8))
        attention.project.weight = nn.Parameter(torch.empty(12, 8))
    narrow = torch.fx.symbolic_trace(initial.materialize(attention, seed=0))
    assert narrow(torch.zeros(2, 5, 12)).shape == (2, 5, 12)


def test_attention_is_that_of_pytorch() -> None:
    with torch.device("meta"):
        ours = vit.Attention(12, 3)
    initial.materialize(ours, seed=0)
    theirs = nn.MultiheadAttention(12, 3, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]))
        theirs.in_proj_bias.zero_()
        theirs.out_proj.weight.copy_(ours.project.weight)
        theirs.out_proj.bias.zero_()
    tokens = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(ours(tokens), theirs(tokens, tokens, tokens)[0], atol=1e-6)


def test_building_takes_no_memory_for_weights() -> None:
    model = registry.build(VGG16)
    assert all(tensor.is_meta for tensor in model.state_dict().values())
    assert not model.training


@pytest.mark.parametrize(("architecture", "input_shape"), CASES)
def test_every_architecture_takes_any_input_and_any_number_of_classes(architecture: str, input_shape: tuple[int, ...]) -> None:
    classes = 2 + 7 * CASES.index((architecture, input_shape))
    model = registry.build(ModelSpec(architecture, input_shape, classes))
    traced = trace(model, input_shape)
    assert traced.shapes[next(reversed(traced.shapes))] == (1, classes)
    structure = find_groups(traced)
    widths = [group.width if group.frozen else max(1, group.width // 3) for group in structure.groups]
    narrow = postprocessor.resize(model, structure, widths)
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


@pytest.mark.parametrize(
    ("architecture", "shape", "message"),
    [
        ("resnet50", (24,), r"resnet50 takes \(channels, height, width\), for instance 3x32x32, not an input of 24"),
        ("convnet1d", (3, 32, 32), r"convnet1d takes \(channels, length\), for instance 6x128, not an input of 3×32×32"),
        ("mlp", (6, 128), r"mlp takes \(features,\), for instance 24, not an input of 6×128"),
    ],
)
def test_an_input_of_another_kind_is_refused(architecture: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        registry.build(ModelSpec(architecture, shape, 10))
