from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from reconvene_agent.worker.reconvene.criteria.apportion import apportion


@st.composite
def shared(draw: st.DrawFn) -> tuple[dict[str, float], dict[str, int], int]:
    """Draw shares of layers that sum to about a total which all of them together hold."""
    sizes = {f"layer{index}": size for index, size in enumerate(draw(st.lists(st.integers(1, 1000), min_size=1, max_size=8)))}
    total = draw(st.integers(0, sum(sizes.values())))
    density = total / sum(sizes.values())
    return {name: density * size for name, size in sizes.items()}, sizes, total


@given(shared())
def test_counts_are_the_shares_rounded_and_sum_to_the_total(case: tuple[dict[str, float], dict[str, int], int]) -> None:
    shares, sizes, total = case
    counts = apportion(shares, sizes, total)
    assert sum(counts.values()) == total
    assert list(counts) == list(sizes)
    for name, count in counts.items():
        assert 0 <= count <= sizes[name]
        assert abs(Fraction(count) - Fraction(shares[name])) < 1


def test_what_is_left_over_goes_to_the_largest_remainders_and_of_equal_ones_to_the_earlier() -> None:
    assert apportion({"a": 1.2, "b": 1.7, "c": 1.1}, {"a": 9, "b": 9, "c": 9}, 4) == {"a": 1, "b": 2, "c": 1}
    assert apportion({"a": 0.5, "b": 0.5, "c": 1.0}, {"a": 9, "b": 9, "c": 9}, 2) == {"a": 1, "b": 0, "c": 1}


def test_a_full_layer_takes_no_more_and_an_empty_one_gives_none() -> None:
    assert apportion({"a": 2.0, "b": 1.0}, {"a": 2, "b": 9}, 5) == {"a": 2, "b": 3}
    assert apportion({"a": 0.0, "b": 3.0}, {"a": 5, "b": 5}, 1) == {"a": 0, "b": 1}
