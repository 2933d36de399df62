from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.worker.models import registry
from reconvene_agent.worker.models.tracing import trace
from reconvene_agent.worker.reconvene.groups import find_groups
from support.grouping import Classified, followers, found, halved_runs, structure_of
from support.models import TINY_RESNET, TINY_VGG


def test_a_plain_network_has_one_group_for_each_convolution() -> None:
    structure = find_groups(trace(registry.build(TINY_VGG), TINY_VGG.input))
    names = ["1_1", "2_1", "3_1", "3_2", "4_1", "4_2", "5_1", "5_2"]
    inner = {name: group for group in structure.groups for name in group.producers}
    assert list(inner) == [f"features.conv{name}" for name in names] + ["classifier"]
    assert [inner[f"features.conv{name}"].width for name in names] == [64, 128, 256, 256, 512, 512, 512, 512]
    assert [name for name, group in inner.items() if group.frozen] == ["classifier"]
    assert followers(structure, "features.conv5_2") == {
        ("features.conv5_2", "out", 1),
        ("features.norm5_2", "both", 1),
        ("classifier", "in", 1),
    }
    assert ("features.conv2_1", "in", 1) in followers(structure, "features.conv1_1")
    assert all(group.name == name for name, group in inner.items())


@pytest.mark.parametrize(("architecture", "blocks"), [("resnet20", 3), ("resnet56", 9)])
def test_the_layers_that_are_added_in_a_residual_stage_share_one_group(architecture: str, blocks: int) -> None:
    spec = ModelSpec(architecture, TINY_RESNET.input, 5)
    structure = find_groups(trace(registry.build(spec), spec.input))
    by_producers = {frozenset(group.producers): group for group in structure.groups if group.producers}
    expected: dict[frozenset[str], int] = {frozenset({"classifier"}): 5}
    for stage, width in enumerate((16, 32, 64)):
        rows = [f"stages.{stage}.{block}" for block in range(blocks)]
        shared = {f"{row}.conv2" for row in rows} | ({"conv"} if stage == 0 else {f"{rows[0]}.shortcut.0"})
        expected[frozenset(shared)] = width
        expected |= {frozenset({f"{row}.conv1"}): width for row in rows}
    assert {producers: group.width for producers, group in by_producers.items()} == expected
    stage1 = followers(structure, "conv")
    assert {layer for layer, side, _ in stage1 if side == "both"} == {"norm"} | {
        f"stages.0.{block}.norm2" for block in range(blocks)
    }
    readers = {layer for layer, side, _ in stage1 if side == "in"}
    assert readers == {f"stages.0.{block}.conv1" for block in range(blocks)} | {"stages.1.0.conv1", "stages.1.0.shortcut.0"}


def test_a_depthwise_convolution_follows_its_input() -> None:
    class Depthwise(Classified):
        def __init__(self) -> None:
            super().__init__()
            self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
            self.norm = nn.BatchNorm2d(8)

        def body(self, x: Tensor) -> Tensor:
            return self.second(functional.relu6(self.norm(self.depthwise(x))))

    assert found(Depthwise)["first"].producers == ("first",)
    assert followers(structure_of(Depthwise), "first") == {
        ("first", "out", 1),
        ("depthwise", "in", 1),
        ("depthwise", "out", 1),
        ("depthwise", "groups", 1),
        ("norm", "both", 1),
        ("second", "in", 1),
    }
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
    assert ("classifier", "in", 16) in followers(structure_of(model), "first")
    assert not found(model)["first"].frozen
    assert halved_runs(model).get_parameter("classifier.weight").shape == (5, 4 * 16)


@pytest.mark.parametrize("flatten", [lambda x: x.view(x.size(0), 128), lambda x: x.permute(0, 2, 1, 3).flatten(1).roll(1)])
def test_a_flattening_of_another_kind_holds_the_width(flatten: Callable[[Tensor], Tensor]) -> None:
    assert found(flattening(flatten))["first"].frozen


def test_a_layer_behind_a_concatenation_reads_one_group_after_another() -> None:
    class Concatenating(Classified):
        def __init__(self) -> None:
            super().__init__()
            self.branch = nn.Conv2d(8, 4, 1)
            self.norm = nn.BatchNorm2d(20)
            self.second = nn.Conv2d(20, 8, 1)

        def body(self, x: Tensor) -> Tensor:
            return self.second(self.norm(torch.cat([x, self.branch(x), x], 1)))

    structure = structure_of(Concatenating)
    number = {group.name: index for index, group in enumerate(structure.groups)}
    (inputs,) = (side for side in structure.sides if (side.layer, side.side) == ("second", "in"))
    assert inputs.parts == ((number["first"], 1), (number["branch"], 1), (number["first"], 1))
    assert not any(found(Concatenating)[name].frozen for name in ("first", "branch", "second"))
    assert halved_runs(Concatenating).get_parameter("second.weight").shape == (4, 4 + 2 + 4, 1, 1)


def test_a_module_that_is_used_twice_keeps_one_width_for_input_and_output() -> None:
    class Twice(Classified):
        def body(self, x: Tensor) -> Tensor:
            return self.second(self.second(x))

    groups = found(Twice)
    assert groups["first"] is groups["second"]
    assert ("second", "in", 1) in followers(structure_of(Twice), "first")
    assert halved_runs(Twice).get_parameter("second.weight").shape == (4, 4, 3, 3)


def test_a_linear_layer_used_on_two_shapes_divides_the_wider_one_into_blocks() -> None:
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
    assert groups["wide"] is groups["narrow"]
    assert (groups["wide"].width, groups["wide"].entries, groups["wide"].frozen) == (4, 4, "")
    small = halved_runs(TwoShapes)
    assert [len(small.get_parameter(f"{name}.weight")) for name in ("wide", "narrow")] == [8, 2]


def test_a_linear_layer_used_on_two_shapes_that_cannot_be_divided_alike_is_held_on_both() -> None:
    class TwoShapes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide = nn.Conv2d(3, 4, 1)
            self.narrow = nn.Conv2d(3, 3, 1)
            self.classifier = nn.Linear(12, 5)

        def forward(self, x: Tensor) -> Tensor:
            wide = functional.adaptive_avg_pool2d(self.wide(x), (3, 1)).flatten(1)
            return self.classifier(wide) + self.classifier(functional.adaptive_avg_pool2d(self.narrow(x), 2).flatten(1))

    groups = found(TwoShapes)
    assert groups["wide"].frozen == groups["narrow"].frozen == "classifier is used on tensors of different shapes"
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


def test_a_linear_layer_may_see_rows_and_sequences() -> None:
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
    assert groups["first"] is groups["other"]
    assert not groups["first"].frozen
    assert not groups["linear"].frozen
    halved_runs(Sequences)


def test_a_parameter_of_the_models_own_that_meets_the_channels_follows_them() -> None:
    class Scaled(Classified):
        def __init__(self) -> None:
            super().__init__()
            self.mean = nn.Parameter(torch.ones(1, 8, 1, 1))  # named as an operation is

        def body(self, x: Tensor) -> Tensor:
            return self.second(x * self.mean)

    assert ("mean", "1", 1) in followers(structure_of(Scaled), "first")
    assert not found(Scaled)["first"].frozen
    assert halved_runs(Scaled).get_parameter("mean").shape == (1, 4, 1, 1)


def test_a_constant_that_meets_the_channels_holds_them() -> None:
    class Scaled(Classified):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("factors", torch.ones(1, 8, 1, 1))

        def body(self, x: Tensor) -> Tensor:
            return self.second(x * self.factors)

    assert found(Scaled)["first"].frozen == "meets factors, which is a constant"
    halved_runs(Scaled)


def test_group_norm_keeps_or_loses_whole_groups() -> None:
    class Normed(Classified):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.GroupNorm(4, 8)

        def body(self, x: Tensor) -> Tensor:
            return self.second(self.norm(x))

    group = found(Normed)["first"]
    assert (group.width, group.entries, group.frozen) == (4, 2, "")
    small = halved_runs(Normed)
    assert small.norm.num_groups == 2
    assert small.get_parameter("first.weight").shape[0] == 4


def test_a_module_is_judged_by_what_it_is_and_not_by_its_name() -> None:
    class Misnamed(Classified):
        def __init__(self) -> None:
            super().__init__()
            self.relu = nn.Softmax(1)

        def body(self, x: Tensor) -> Tensor:
            return self.second(self.relu(x))

    assert found(Misnamed)["first"].frozen == "is normalised by softmax"


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


def test_a_grouped_convolution_keeps_or_loses_whole_groups() -> None:
    class Grouped(Classified):
        def __init__(self) -> None:
            super().__init__()
            self.second = nn.Conv2d(8, 16, 3, padding=1, groups=4)
            self.third = nn.Conv2d(16, 8, 1)

        def body(self, x: Tensor) -> Tensor:
            return self.third(self.second(x))

    group = found(Grouped)["first"]
    assert (group.width, group.entries, group.producers, group.frozen) == (4, 2, ("first",), "")
    assert ("third", "in", 4) in followers(structure_of(Grouped), "first")
    small = halved_runs(Grouped)
    assert small.second.groups == 2
    assert small.get_parameter("second.weight").shape == (8, 2, 3, 3)


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
    assert groups["classifier"].output
    assert not groups["conv"].output


def test_a_constant_factor_changes_nothing_about_the_channels() -> None:
    class Scaled(Classified):
        def body(self, x: Tensor) -> Tensor:
            return self.second(0.5 * x + 1)

    assert not found(Scaled)["first"].frozen
