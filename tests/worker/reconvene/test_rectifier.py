from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconvene_agent.core.options import MethodOptions
from reconvene_agent.worker.reconvene.groups import ChannelGroup
from reconvene_agent.worker.reconvene.preprocessor import LayerDensity
from reconvene_agent.worker.reconvene.rectifier import rectify

WIDTHS = st.integers(1, 4096)
DENSITIES = st.floats(0.0, 1.0)
RULES = st.sampled_from(["density", "sqrt"])


def group(width: int, *producers: str, frozen: str = "", entries: int = 1) -> ChannelGroup:
    return ChannelGroup(producers[0], width, entries, producers, frozen)


def kept_width(width: int, density: float, options: MethodOptions, multiple: int = 1) -> int:
    """Return the width of a resilient group that is one layer of this density."""
    whole = 10**9
    (width,) = rectify(
        [LayerDensity("layer", whole, round(density * whole))],
        [group(width, "layer")],
        {"layer": "resilient"},
        options,
        multiple,
    )
    return width


@pytest.mark.parametrize(
    ("width", "density", "rule", "kept"),
    [
        (512, 0.067, "density", 35),  # 34.3 is rounded up
        (512, 0.067, "sqrt", 133),  # 132.5 is rounded up
        (64, 0.25, "density", 16),
        (64, 0.25, "sqrt", 32),
        (50, 0.1, "density", 5),  # exactly, although 0.1 · 50 is a little more in binary
        (30, 0.7, "density", 21),
        (64, 1.0, "sqrt", 64),
    ],
)
def test_the_width_kept_is_the_next_whole_number(width: int, density: float, rule: str, kept: int) -> None:
    assert kept_width(width, density, MethodOptions(width=rule, min_width=1)) == kept


@pytest.mark.parametrize("rule", ["density", "sqrt"])
def test_a_group_never_collapses_and_never_grows(rule: str) -> None:
    assert kept_width(512, 0.0, MethodOptions(width=rule)) == 4
    assert kept_width(512, 0.0, MethodOptions(width=rule, min_width=12)) == 12
    assert kept_width(3, 0.0, MethodOptions(width=rule, min_width=12)) == 3


@given(WIDTHS, DENSITIES, RULES, st.integers(1, 64))
def test_the_width_kept_is_within_one_of_its_share_and_its_bounds(width: int, density: float, rule: str, least: int) -> None:
    kept = kept_width(width, density, MethodOptions(width=rule, min_width=least))
    share = density if rule == "density" else math.sqrt(density)
    assert min(width, least) <= kept <= width
    assert kept == pytest.approx(min(width, max(least, share * width)), abs=1.0)


@given(WIDTHS, DENSITIES, DENSITIES, RULES)
def test_a_denser_layer_never_keeps_fewer(width: int, one: float, other: float, rule: str) -> None:
    options = MethodOptions(width=rule)
    assert kept_width(width, min(one, other), options) <= kept_width(width, max(one, other), options)


LAYERS = [LayerDensity("bare", 1000, 100), LayerDensity("full", 1000, 900), LayerDensity("thin", 3000, 100)]


def test_only_free_groups_with_resilient_producers_become_narrower() -> None:
    groups = [group(40, "bare"), group(40, "full"), group(40, "thin", frozen="the model's output"), group(10, "classifier")]
    verdicts = {"bare": "resilient", "full": "sensitive", "thin": "resilient"}
    assert rectify(LAYERS, groups, verdicts, MethodOptions(width="density", min_width=1), 1) == (4, 40, 40, 10)


def test_one_width_serves_a_whole_group_by_its_common_density() -> None:
    verdicts = {"bare": "resilient", "thin": "resilient"}
    (width,) = rectify(LAYERS, [group(40, "bare", "thin")], verdicts, MethodOptions(width="density", min_width=1), 1)
    assert width == 2  # 200 of 4000 weights, of 40


@pytest.mark.parametrize(
    ("kept", "multiple", "width"), [(33, 8, 40), (40, 8, 40), (3, 8, 8), (125, 16, 128), (60, 16, 64), (63, 1, 63)]
)
def test_widths_are_rounded_up_to_what_the_hardware_likes(kept: int, multiple: int, width: int) -> None:
    assert kept_width(128, kept / 128, MethodOptions(width="density", min_width=1), multiple) == width


def test_rounding_never_makes_a_group_wider_than_it_was() -> None:
    assert kept_width(20, 0.99, MethodOptions(width="density"), 16) == 20


def test_shrinking_makes_sensitive_groups_narrower_too() -> None:
    groups = [group(40, "bare"), group(40, "full")]
    verdicts = {"bare": "resilient", "full": "sensitive"}
    options = MethodOptions(width="density", sensitive="shrink", min_width=1)
    assert rectify(LAYERS, groups, verdicts, options, 1) == (4, 36)


def test_of_heads_one_may_be_enough_and_each_counts_with_all_its_channels() -> None:
    heads = group(6, "bare", entries=64)
    verdicts = {"bare": "resilient"}
    assert rectify(LAYERS, [heads], verdicts, MethodOptions(width="density", min_width=4), 16) == (1,)
    assert rectify(LAYERS, [heads], verdicts, MethodOptions(width="density", min_width=130), 1) == (3,)
