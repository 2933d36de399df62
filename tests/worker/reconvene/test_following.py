from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from support.grouping import Classified, followers, found, halved_runs, rows, structure_of

Body = Callable[[nn.Module, Tensor], Tensor]


def model(body: Body, inputs: int = 8, **layers: Callable[[], nn.Module | nn.Parameter]) -> Callable[[], nn.Module]:
    """Return how to build a model of this body, whose second convolution has so many inputs, with more layers."""

    class Bodied(Classified):
        def __init__(self) -> None:
            super().__init__()
            self.second = nn.Conv2d(inputs, 8, 1)
            for name, layer in layers.items():
                setattr(self, name, layer())

        def body(self, x: Tensor) -> Tensor:
            return body(self, x)

    return Bodied


def parameter(*shape: int) -> Callable[[], nn.Parameter]:
    return lambda: nn.Parameter(torch.ones(shape))


HELD: dict[str, tuple[Body, int]] = {
    "parts of given sizes": (lambda self, x: self.second(x.split(4, 1)[0]), 4),
    "parts of given sizes, put together": (lambda self, x: self.second(torch.cat(torch.split(x, 4, 1), 1)), 8),
    "the largest of each row": (lambda self, x: self.second(x.max(3)[0].unsqueeze(3)), 8),
    "the largest of each row, by name": (lambda self, x: self.second(x.max(3).values.unsqueeze(3)), 8),
    "one by one": (lambda self, x: self.second(x.unbind(3)[0].unsqueeze(3)), 8),
    "some of the parts": (lambda self, x: self.second(torch.cat(x.chunk(4, 1)[:2], 1)), 4),
    "one of some of the parts": (lambda self, x: self.second(x.chunk(4, 1)[1:][0] + x[:, :2].mean(1, keepdim=True)), 2),
    "unequal parts": (lambda self, x: self.second(x.chunk(3, 1)[0]), 3),
    "a concatenation along an axis by another name": (lambda self, x: self.second(torch.cat([x, x], axis=1)), 16),
    "a limit for each channel": (lambda self, x: self.second(torch.clamp(x, max=x.mean((2, 3), keepdim=True))), 8),
    "as many as there are elsewhere": (lambda self, x: self.second(x[:, : self.second(x).shape[1]]), 8),
    "an ellipsis": (lambda self, x: self.second(x[..., :4, :4]), 8),
    "a standard deviation": (lambda self, x: self.second(x.std((2, 3), keepdim=True)), 8),
    "a stack": (lambda self, x: self.second(torch.stack([x, x]).sum(0)), 8),
    "a shape as a whole": (lambda self, x: self.second(x.flatten(1).reshape(x.shape)), 8),
    "a comparison": (lambda self, x: self.second(torch.where(x > 0, x, 0)), 8),
    "half of its channels": (lambda self, x: self.second(x.view(x.shape[0], 2, x.shape[1] // 2, 8, 8).flatten(1, 2)), 8),
}


@pytest.mark.parametrize("case", HELD)
def test_a_use_that_is_not_foreseen_holds_the_channels_and_the_model_still_runs(case: str) -> None:
    builder = model(*HELD[case])
    assert found(builder)["first"].frozen
    halved_runs(builder)


def test_every_reason_names_what_was_not_understood() -> None:
    reason = found(model(lambda self, x: self.second(torch.roll(x, 1, 1))))["first"].frozen
    assert reason == "passes through call_function roll, which is not understood"
    reason = found(model(lambda self, x: self.second(self.norm(x)), norm=lambda: nn.InstanceNorm2d(8)))["first"].frozen
    assert reason == "passes through call_module norm, which is not understood"


@pytest.mark.parametrize("size", [3, 6, 8])
def test_channels_that_are_pooled_over_like_places_are_held(size: int) -> None:
    def body(self: nn.Module, x: Tensor) -> Tensor:
        return functional.adaptive_avg_pool2d(x.permute(0, 2, 3, 1), size).permute(0, 3, 1, 2)

    class Pooling(Classified):
        def __init__(self) -> None:
            super().__init__()
            self.classifier = nn.Linear(size, 5)

        def body(self, x: Tensor) -> Tensor:
            return body(self, x)

    assert found(Pooling)["first"].frozen == "is taken for the places of an image or a window"
    halved_runs(Pooling)


def test_channels_that_a_convolution_slides_over_are_held() -> None:
    def body(self: nn.Module, x: Tensor) -> Tensor:
        mixed = self.mix(x.flatten(2).transpose(1, 2))
        return self.read(mixed).unsqueeze(3).transpose(1, 2)

    builder = model(body, mix=lambda: nn.Conv1d(64, 6, 1), read=lambda: nn.Linear(8, 8))
    groups = found(builder)
    assert groups["first"].frozen == "is taken for the places of an image or a window"
    assert not groups["mix"].frozen
    halved_runs(builder)


def test_the_size_of_another_image_may_be_asked_for() -> None:
    builder = model(lambda self, x: self.second(functional.interpolate(functional.max_pool2d(x, 2), x.shape[2:])))
    assert not found(builder)["first"].frozen
    halved_runs(builder)
    crossed = model(lambda self, x: self.second(functional.adaptive_avg_pool2d(x, x.shape[1])))
    assert found(crossed)["first"].frozen
    halved_runs(crossed)


@pytest.mark.parametrize("whole", [False, True], ids=["one by one", "as a tuple"])
@pytest.mark.parametrize(("size", "held"), [(-1, False), (8, True)])
def test_a_token_for_every_image_follows_the_channels_unless_its_size_is_written_down(size: int, held: bool, whole: bool) -> None:
    def body(self: nn.Module, x: Tensor) -> Tensor:
        sizes = (x.shape[0], -1, size)
        token = self.token.expand(sizes) if whole else self.token.expand(*sizes)
        tokens = torch.cat([token, x.flatten(2).transpose(1, 2)], 1)
        return self.second(tokens.transpose(1, 2).unsqueeze(3))

    builder = model(body, token=parameter(1, 1, 8))
    assert bool(found(builder)["first"].frozen) == held
    assert halved_runs(builder).get_parameter("token").shape == (1, 1, 8 if held else 4)


def test_a_parameter_that_is_repeated_to_a_fixed_number_of_channels_holds_them() -> None:
    builder = model(lambda self, x: self.second(x * self.factor.expand(-1, 8, -1, -1)), factor=parameter(1, 1, 1, 1))
    assert found(builder)["first"].frozen
    halved_runs(builder)
    named = model(lambda self, x: self.second(x * self.factor.expand(size=(1, 8, 8, 8))), factor=parameter(1, 8, 1, 1))
    assert found(named)["first"].frozen
    halved_runs(named)


class Scale(nn.Module):
    """A factor for each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


@pytest.mark.parametrize(
    ("scale", "name"),
    [
        (lambda: nn.ParameterList([nn.Parameter(torch.ones(8, 1, 1))]), "scale.0"),
        (lambda: nn.ParameterDict({"all": nn.Parameter(torch.ones(8, 1, 1))}), "scale.all"),
        (Scale, "scale.factor"),
        (lambda: nn.Sequential(Scale(), Scale()), "scale.1.factor"),
    ],
    ids=["in a list", "in a dictionary", "in a part of the model", "deeper"],
)
def test_a_parameter_follows_the_channels_wherever_it_is_kept(scale: Callable[[], nn.Module], name: str) -> None:
    def body(self: nn.Module, x: Tensor) -> Tensor:
        kept = name.removeprefix("scale.")
        return self.second(self.scale(x) if "factor" in kept else x * self.scale[int(kept) if kept == "0" else kept])

    builder = model(body, scale=scale)
    assert (name, "0", 1) in followers(structure_of(builder), "first")
    assert not found(builder)["first"].frozen
    assert halved_runs(builder).get_parameter(name).shape == (4, 1, 1)


def test_a_matrix_product_with_a_parameter_narrows_both_of_its_sides() -> None:
    def body(self: nn.Module, x: Tensor) -> Tensor:
        return self.second(torch.matmul(x.permute(0, 2, 3, 1), self.weight).permute(0, 3, 1, 2))

    builder = model(body, inputs=6, weight=parameter(1, 1, 8, 6))
    assert rows(builder)["weight", "2"] == [("first", 1)]
    assert rows(builder)["weight", "3"] == rows(builder)["second", "in"]
    halved_runs(builder)


def test_a_matrix_product_of_tensors_that_are_repeated_for_one_another_is_held() -> None:
    builder = model(lambda self, x: self.second(torch.matmul(x.mean(1, keepdim=True), x)))
    assert found(builder)["first"].frozen
    halved_runs(builder)


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_a_group_norm_keeps_whole_groups_and_one_over_all_channels_any_of_them(count: int) -> None:
    builder = model(lambda self, x: self.second(self.norm(x)), norm=lambda: nn.GroupNorm(count, 8))
    group = found(builder)["first"]
    assert (group.width, group.entries) == ((8, 1) if count == 1 else (count, 8 // count))
    small = halved_runs(builder)
    assert (small.norm.num_groups, small.norm.num_channels) == (max(1, count // 2), 4)


def test_a_layer_norm_over_channels_follows_them_and_one_over_images_is_held() -> None:
    def body(self: nn.Module, x: Tensor) -> Tensor:
        return self.second(self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))

    builder = model(body, norm=lambda: nn.LayerNorm(8))
    assert found(builder)["first"].trunk
    assert halved_runs(builder).norm.normalized_shape == (4,)
    whole = model(lambda self, x: self.second(self.norm(x)), norm=lambda: nn.LayerNorm((8, 8, 8)))
    assert found(whole)["first"].frozen
    halved_runs(whole)


@pytest.mark.parametrize(("groups", "outputs"), [(2, 8), (4, 16), (8, 8), (8, 24)])
def test_a_grouped_convolution_passes_its_blocks_on(groups: int, outputs: int) -> None:
    builder = model(
        lambda self, x: self.second(self.grouped(x)), outputs, grouped=lambda: nn.Conv2d(8, outputs, 3, padding=1, groups=groups)
    )
    assert rows(builder)["second", "in"] == [("first", outputs // groups)]
    assert rows(builder)["grouped", "groups"] == [("first", 1)]
    small = halved_runs(builder)
    assert small.get_parameter("grouped.weight").shape == (outputs // 2, 8 // groups, 3, 3)


def test_blocks_of_grouped_convolutions_that_differ_are_those_of_the_fewer() -> None:
    builder = model(
        lambda self, x: self.second(self.four(self.two(x))),
        two=lambda: nn.Conv2d(8, 8, 1, groups=2),
        four=lambda: nn.Conv2d(8, 8, 1, groups=4),
    )
    assert found(builder)["first"].width == 2
    assert rows(builder)["four", "groups"] == [("first", 2)]
    halved_runs(builder)


def test_a_grouped_convolution_of_a_concatenation_cuts_its_blocks_at_the_seam() -> None:
    builder = model(
        lambda self, x: self.second(self.grouped(torch.cat([x, self.branch(x)], 1))),
        12,
        branch=lambda: nn.Conv2d(8, 4, 1),
        grouped=lambda: nn.Conv2d(12, 12, 1, groups=6),
    )
    assert rows(builder)["grouped", "groups"] == [("first", 1), ("branch", 1)]
    assert (found(builder)["first"].width, found(builder)["branch"].width) == (4, 2)
    halved_runs(builder)


def test_shuffled_channels_come_in_as_many_parts_as_are_written_down() -> None:
    def body(self: nn.Module, x: Tensor) -> Tensor:
        parts = x.view(x.shape[0], 2, -1, x.shape[2], x.shape[3])
        return self.second(parts.transpose(1, 2).reshape(x.shape[0], -1, x.shape[2], x.shape[3]))

    builder = model(body)
    assert rows(builder)["first", "out"] == [("first", 1), ("first", 1)]
    assert rows(builder)["second", "in"] == [("first", 2)]
    assert found(builder)["first"].width == 4
    halved_runs(builder)


def test_equal_parts_of_the_channels_keep_one_width() -> None:
    def body(self: nn.Module, x: Tensor) -> Tensor:
        value, gate = x.chunk(2, dim=1)
        return self.second(value * torch.sigmoid(gate))

    builder = model(body, 4)
    assert rows(builder)["first", "out"] == [("first", 1), ("first", 1)]
    assert rows(builder)["second", "in"] == [("first", 1)]
    halved_runs(builder)


def test_the_models_input_beside_channels_stays_whole_when_both_are_flattened() -> None:
    class Skipping(Classified):
        def __init__(self) -> None:
            super().__init__()
            self.classifier = nn.Linear(11 * 64, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.classifier(torch.cat([x, self.first(x)], 1).flatten(1))

    assert [times for _, times in rows(Skipping)["classifier", "in"]] == [64, 64]
    assert not found(Skipping)["first"].frozen
    assert halved_runs(Skipping).get_parameter("classifier.weight").shape == (5, (3 + 4) * 64)


def test_the_models_input_beside_channels_holds_them_when_both_are_taken_apart() -> None:
    def body(self: nn.Module, x: Tensor) -> Tensor:
        beside = torch.cat([x.mean(1, keepdim=True), x, x.mean(1, keepdim=True)], 1)
        return self.second(beside.view(x.shape[0], 5, -1, 8, 8).flatten(1, 2))

    builder = model(body, 10)
    assert found(builder)["first"].frozen
    halved_runs(builder)


def test_sizes_of_its_own_tensor_follow_it() -> None:
    def body(self: nn.Module, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        return self.second(x.view(batch, channels, height * width).reshape(batch, channels, height, width))

    builder = model(body)
    assert not found(builder)["first"].frozen
    halved_runs(builder)


def test_an_answer_is_known_by_the_layers_that_give_it() -> None:
    structure = structure_of(Classified)
    assert structure.answers() == {"classifier"}
    assert structure.held() == {"classifier": "the model's output"}
