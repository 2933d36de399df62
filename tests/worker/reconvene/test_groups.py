from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.worker.models import registry
from reconvene_agent.worker.models.tracing import trace
from reconvene_agent.worker.reconvene import postprocessor
from reconvene_agent.worker.reconvene.groups import ChannelGroup, Slot, find_groups
from support.models import TINY_RESNET, TINY_VGG

INPUT = (3, 8, 8)


def found(builder: Callable[[], nn.Module], input_shape: tuple[int, int, int] = INPUT) -> dict[str, ChannelGroup]:
    """Return the groups of a model on the meta device by each of their producers."""
    with torch.device("meta"):
        model = builder().eval()
    return {name: group for group in find_groups(trace(model, input_shape)) for name in group.producers}


def halved_runs(builder: Callable[[], nn.Module], input_shape: tuple[int, int, int] = INPUT) -> nn.Module:
    """Halve every group that may change, in a real model, run it, and return it."""
    with torch.device("meta"):
        model = builder().eval()
    groups = find_groups(trace(model, input_shape))
    widths = [group.width if group.frozen or group.width < 2 else group.width // 2 for group in groups]
    narrow = postprocessor.resize(model, groups, widths)
    real = narrow.to_empty(device="cpu").eval()
    with torch.no_grad():
        for tensor in (*real.parameters(), *real.buffers()):
            tensor.fill_(0.5)
        assert real(torch.ones(2, *input_shape)).shape[0] == 2
    return real


class Classified(nn.Module):
    """A body between a first convolution of 8 channels and a classifier, which is what most models here differ in."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.classifier = nn.Linear(8, 5)

    def body(self, x: Tensor) -> Tensor:
        return self.second(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.body(self.first(x)).mean((2, 3)))


def test_a_plain_network_has_one_group_for_each_convolution() -> None:
    groups = find_groups(trace(registry.build(TINY_VGG), TINY_VGG.input))
    names = ["1_1", "2_1", "3_1", "3_2", "4_1", "4_2", "5_1", "5_2"]
    inner = {name: group for group in groups for name in group.producers}
    assert list(inner) == [f"features.conv{name}" for name in names] + ["classifier"]
    assert [inner[f"features.conv{name}"].width for name in names] == [64, 128, 256, 256, 512, 512, 512, 512]
    assert [name for name, group in inner.items() if group.frozen] == ["classifier"]
    last = inner["features.conv5_2"]
    assert set(last.slots) == {
        Slot("features.conv5_2", "out"),
        Slot("features.norm5_2", "both"),
        Slot("classifier", "in"),
    }
    first = inner["features.conv1_1"]
    assert Slot("features.conv2_1", "in") in first.slots


@pytest.mark.parametrize(("architecture", "blocks"), [("resnet20", 3), ("resnet56", 9)])
def test_the_layers_that_are_added_in_a_residual_stage_share_one_group(architecture: str, blocks: int) -> None:
    spec = ModelSpec(architecture, TINY_RESNET.input, 5)
    groups = find_groups(trace(registry.build(spec), spec.input))
    by_producers = {frozenset(group.producers): group for group in groups if group.producers}
    expected: dict[frozenset[str], int] = {frozenset({"classifier"}): 5}
    for stage, width in enumerate((16, 32, 64)):
        rows = [f"stages.{stage}.{block}" for block in range(blocks)]
        shared = {f"{row}.conv2" for row in rows} | ({"conv"} if stage == 0 else {f"{rows[0]}.shortcut.0"})
        expected[frozenset(shared)] = width
        expected |= {frozenset({f"{row}.conv1"}): width for row in rows}
    assert {producers: group.width for producers, group in by_producers.items()} == expected
    stage1 = by_producers[frozenset({f"stages.0.{block}.conv2" for block in range(blocks)} | {"conv"})]
    followers = {slot.layer for slot in stage1.slots if slot.side == "both"}
    assert followers == {"norm"} | {f"stages.0.{block}.norm2" for block in range(blocks)}
    readers = {slot.layer for slot in stage1.slots if slot.side == "in"}
    assert readers == {f"stages.0.{block}.conv1" for block in range(blocks)} | {"stages.1.0.conv1", "stages.1.0.shortcut.0"}


def test_a_depthwise_convolution_follows_its_input() -> None:
    class Depthwise(Classified):
        def __init__(self) -> None:
            super().__init__()
            self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
            self.norm = nn.BatchNorm2d(8)

        def body(self, x: Tensor) -> Tensor:
            return self.second(functional.relu6(self.norm(self.depthwise(x))))

    first = found(Depthwise)["first"]
    assert first.producers == ("first",)
    assert {slot for slot in first.slots if slot.side == "both"} == {Slot("depthwise", "both"), Slot("norm", "both")}
    narrow = halved_runs(Depthwise)
    assert narrow.get_parameter("depthwise.weight").shape == (4, 1, 3, 3)


def flattening(flatten: Callable[[Tensor], Tensor]) -> type[nn.Module]:
    class Flattening(Classified):
        def __init__(self) -> None:
            super().__init__()
            self.classifier = nn.Linear(8 * 16, 5)
            self.flatten = flatten

        def forward(self, x: Tensor) -> Tensor:
            return self.classifier(functional.relu(self.flatten(functional.max_pool2d(self.first(x), 2))))

    return Flattening


@pytest.mark.parametrize(
    "flatten",
    [lambda x: torch.flatten(x, 1), lambda x: torch.flatten(x, start_dim=1), lambda x: x.flatten(1), nn.Flatten()],
    ids=["function", "by name", "method", "module"],
)
def test_a_flattened_image_gives_the_linear_layer_several_inputs_per_channel(flatten: Callable[[Tensor], Tensor]) -> None:
    model = flattening(flatten)
    group = found(model)["first"]
    assert Slot("classifier", "in", 16) in group.slots
    assert not group.frozen
    assert halved_runs(model).get_parameter("classifier.weight").shape == (5, 4 * 16)


@pytest.mark.parametrize("flatten", [lambda x: torch.flatten(x, 0, 1).view(1, -1), lambda x: x.view(x.size(0), -1)])
def test_a_flattening_of_another_kind_holds_the_width(flatten: Callable[[Tensor], Tensor]) -> None:
    assert found(flattening(flatten))["first"].frozen


def test_channels_that_are_concatenated_are_held_and_say_why() -> None:
    class Concatenating(Classified):
        def __init__(self) -> None:
            super().__init__()
            self.second = nn.Conv2d(16, 8, 1)

        def body(self, x: Tensor) -> Tensor:
            return self.second(torch.cat([x, x], 1))

    groups = found(Concatenating)
    assert groups["first"].frozen == "passes through call_function cat, which is not understood"
    assert not groups["second"].frozen
    halved_runs(Concatenating)


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: x.permute(0, 1, 3, 2),
        lambda x: x / 2,
        lambda x: x[:, :, 1:, 1:],
        lambda x: functional.pixel_shuffle(functional.pixel_unshuffle(x, 2), 2),
        lambda x: functional.softmax(x, 1),
        lambda x: x + x.mean(1, keepdim=True),
        lambda x: x * x.shape[1],
        lambda x: nn.functional.layer_norm(x, x.shape[2:]),
    ],
    ids=["permute", "divide", "slice", "shuffle", "softmax", "mean over channels", "by the width", "norm"],
)
def test_an_operation_that_is_not_understood_holds_what_goes_in_and_the_model_still_runs(
    operation: Callable[[Tensor], Tensor],
) -> None:
    class Puzzling(Classified):
        def body(self, x: Tensor) -> Tensor:
            return self.second(operation(x))

    groups = found(Puzzling)
    assert groups["first"].frozen
    assert not groups["second"].frozen
    halved_runs(Puzzling)


def test_a_module_that_is_used_twice_keeps_one_width_for_input_and_output() -> None:
    class Twice(Classified):
        def body(self, x: Tensor) -> Tensor:
            return self.second(self.second(x))

    groups = found(Twice)
    assert groups["first"] is groups["second"]
    assert Slot("second", "in") in groups["first"].slots
    assert halved_runs(Twice).get_parameter("second.weight").shape == (4, 4, 3, 3)


def test_a_linear_layer_used_on_two_shapes_is_held_on_both() -> None:
    class TwoShapes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide = nn.Conv2d(3, 16, 1)
            self.narrow = nn.Conv2d(3, 4, 1)
            self.classifier = nn.Linear(16, 5)

        def forward(self, x: Tensor) -> Tensor:
            pooled = functional.adaptive_avg_pool2d(self.narrow(x), 2)
            return self.classifier(self.wide(x).mean((2, 3))) + self.classifier(pooled.flatten(1))

    groups = found(TwoShapes)
    assert {name: (group.width, bool(group.frozen)) for name, group in groups.items()} == {
        "wide": (16, True),
        "narrow": (4, True),
        "classifier": (5, True),
    }
    assert "different shapes" in groups["wide"].frozen
    halved_runs(TwoShapes)


def test_a_layer_whose_weight_is_used_by_itself_is_held() -> None:
    class Tied(Classified):
        def __init__(self) -> None:
            super().__init__()
            self.other = nn.Conv2d(3, 8, 1)
            self.judge = nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            again = functional.conv2d(self.other(x), self.second.weight)
            return super().forward(x) + self.judge(again.mean((2, 3)))

    groups = found(Tied)
    assert groups["first"].frozen == groups["second"].frozen == "its second.weight is used by itself"
    halved_runs(Tied)


def test_a_layer_that_is_also_used_in_a_way_not_understood_is_held() -> None:
    class Sequences(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 8, 1)
            self.other = nn.Conv2d(3, 8, 1)
            self.linear = nn.Linear(8, 8)
            self.classifier = nn.Linear(8, 5)
            self.judge = nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            rows = self.linear(self.other(x).flatten(2).permute(0, 2, 1)).mean(1)
            return self.classifier(self.linear(self.first(x).mean((2, 3)))) + self.judge(rows)

    groups = found(Sequences)
    assert groups["first"].frozen == groups["linear"].frozen == "passes through call_module linear, which is not understood"
    halved_runs(Sequences)


def test_a_parameter_that_meets_the_channels_holds_them() -> None:
    class Scaled(Classified):
        def __init__(self) -> None:
            super().__init__()
            self.mean = nn.Parameter(torch.ones(1, 8, 1, 1))  # named as an operation is

        def body(self, x: Tensor) -> Tensor:
            return self.second(x * self.mean)

    groups = found(Scaled)
    assert groups["first"].frozen
    assert not groups["second"].frozen
    halved_runs(Scaled)


def test_a_module_is_judged_by_what_it_is_and_not_by_its_name() -> None:
    class Misnamed(Classified):
        def __init__(self) -> None:
            super().__init__()
            self.relu = nn.Softmax(1)

        def body(self, x: Tensor) -> Tensor:
            return self.second(self.relu(x))

    assert "not understood" in found(Misnamed)["first"].frozen


def test_squeeze_and_excitation_multiplies_within_one_group() -> None:
    class Squeezing(Classified):
        def __init__(self) -> None:
            super().__init__()
            self.down = nn.Conv2d(8, 2, 1)
            self.up = nn.Conv2d(2, 8, 1)

        def body(self, x: Tensor) -> Tensor:
            gate = self.up(functional.relu(self.down(functional.adaptive_avg_pool2d(x, 1))))
            return self.second(x * torch.sigmoid(gate))

    groups = found(Squeezing)
    assert set(groups["first"].producers) == {"first", "up"}
    assert not groups["first"].frozen
    narrow = halved_runs(Squeezing)
    assert narrow.get_parameter("up.weight").shape == (4, 1, 1, 1)


def test_an_addition_across_ranks_is_not_taken_for_one_across_channels() -> None:
    class Crossed(Classified):
        def body(self, x: Tensor) -> Tensor:
            return self.second(x + x.mean(3))  # 8 rows by chance equal to 8 channels

    assert found(Crossed, (3, 8, 8))["first"].frozen


def test_a_grouped_convolution_is_held_with_its_input() -> None:
    class Grouped(Classified):
        def __init__(self) -> None:
            super().__init__()
            self.second = nn.Conv2d(8, 8, 3, padding=1, groups=2)
            self.third = nn.Conv2d(8, 8, 1)

        def body(self, x: Tensor) -> Tensor:
            return self.third(self.second(x))

    groups = found(Grouped)
    assert groups["first"].frozen == groups["second"].frozen == "second is a grouped convolution"
    assert groups["second"].width == 8
    assert not groups["third"].frozen
    halved_runs(Grouped)


def test_input_and_output_of_the_model_are_held() -> None:
    class Through(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)
            self.classifier = nn.Linear(3, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.classifier((x + self.conv(x)).mean((2, 3)))

    groups = found(Through)
    assert groups["conv"].frozen == "the model's input"
    assert groups["classifier"].frozen == "the model's output"


def test_a_constant_factor_changes_nothing_about_the_channels() -> None:
    class Scaled(Classified):
        def body(self, x: Tensor) -> Tensor:
            return self.second(0.5 * x + 1)

    assert not found(Scaled)["first"].frozen
