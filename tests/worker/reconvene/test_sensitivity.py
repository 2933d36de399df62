from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconvene_agent.worker.reconvene.groups import ChannelGroup
from reconvene_agent.worker.reconvene.preprocessor import LayerDensity
from reconvene_agent.worker.reconvene.sensitivity import average_density, evaluate, group_density


def group(*producers: str) -> ChannelGroup:
    return ChannelGroup(producers[0], 16, 1, producers, "")


def alone(layers: list[LayerDensity]) -> list[ChannelGroup]:
    return [group(layer.name) for layer in layers]


SMALL = LayerDensity("small", 100, 90)
LARGE = LayerDensity("large", 900, 90)


def test_the_mean_is_over_layers_and_the_weighted_one_over_weights() -> None:
    assert average_density([SMALL, LARGE], "mean") == pytest.approx(0.5)
    assert average_density([SMALL, LARGE], "weighted") == pytest.approx(0.18)


@pytest.mark.parametrize(("average", "verdict"), [("mean", "resilient"), ("weighted", "sensitive")])
def test_a_layer_between_the_two_averages_is_judged_by_the_one_that_was_asked_for(average: str, verdict: str) -> None:
    between = LayerDensity("between", 100, 30)
    layers = [SMALL, LARGE, between]
    assert average_density(layers, "weighted") < between.density < average_density(layers, "mean")
    assert evaluate(layers, alone(layers), average)["between"] == verdict


@pytest.mark.parametrize("average", ["mean", "weighted"])
def test_a_layer_exactly_at_the_average_is_sensitive_and_one_weight_fewer_is_resilient(average: str) -> None:
    at = [LayerDensity("a", 1000, 600), LayerDensity("b", 1000, 400), LayerDensity("at", 1000, 500)]
    assert evaluate(at, alone(at), average) == {"a": "sensitive", "b": "resilient", "at": "sensitive"}
    below = [LayerDensity("a", 1000, 601), LayerDensity("b", 1000, 400), LayerDensity("at", 1000, 500)]
    assert evaluate(below, alone(below), average)["at"] == "resilient"


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=60), st.fractions(0, 1), st.sampled_from(["mean", "weighted"]))
def test_equal_densities_leave_every_layer_sensitive(sizes: list[int], density: Fraction, average: str) -> None:
    layers = [LayerDensity(str(index), size, size) for index, size in enumerate(sizes)]
    assert set(evaluate(layers, alone(layers), average).values()) == {"sensitive"}
    whole, part = density.denominator, density.numerator
    layers = [LayerDensity(str(index), size * whole, size * part) for index, size in enumerate(sizes)]
    assert set(evaluate(layers, alone(layers), average).values()) == {"sensitive"}


def test_layers_that_share_channels_are_judged_together_by_their_common_density() -> None:
    layers = [LayerDensity("dense", 10, 9), LayerDensity("bare", 990, 30), LayerDensity("other", 100, 50)]
    shared = group("dense", "bare")
    assert group_density(shared, {layer.name: layer for layer in layers}) == pytest.approx(39 / 1000)
    assert evaluate(layers, [shared, group("other")], "mean") == {
        "dense": "resilient",
        "bare": "resilient",
        "other": "sensitive",
    }


def test_a_group_without_prunable_producers_has_no_density_and_changes_no_verdict() -> None:
    layers = [SMALL, LARGE]
    linear = group("classifier")
    assert group_density(linear, {layer.name: layer for layer in layers}) is None
    assert evaluate(layers, [*alone(layers), linear], "mean") == evaluate(layers, alone(layers), "mean")
