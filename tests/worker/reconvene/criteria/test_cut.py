from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from reconvene_agent.worker.reconvene.criteria import cut
from reconvene_agent.worker.reconvene.criteria.cut import Cuts, Histogram, largest

# Ties, both zeros, denormals and the largest numbers are drawn often; they are where a histogram could go wrong.
LARGEST = 3.4028234663852886e38
AWKWARD = st.sampled_from([0.0, -0.0, 1.0, -1.0, 1.0 + 2**-23, 2.0**-149, -(2.0**-149), 2.0**-126, LARGEST, -LARGEST])
VALUES = AWKWARD | st.floats(width=32, allow_nan=False, allow_infinity=False)
MODELS = st.lists(st.lists(VALUES, min_size=1, max_size=30), min_size=1, max_size=6)


def cut_at(layers: list[Tensor], keeps: list[int], magnitudes: bool = False) -> Cuts:
    histograms = {str(index): Histogram(scores, str(index), magnitudes) for index, scores in enumerate(layers)}
    cuts = Cuts(histograms, keeps)
    for index, scores in enumerate(layers):
        cuts.show(str(index), scores)
    return cuts


def by_sorting(layers: list[Tensor], keep: int) -> dict[str, int]:
    """Return the counts that a sort of all scores at once gives."""
    owned = [(-score, index) for index, scores in enumerate(layers) for score in scores.tolist()]
    survivors = [index for _, index in sorted(owned)[:keep]]
    return {str(index): survivors.count(index) for index in range(len(layers))}


@given(MODELS, st.data())
def test_signed_scores_are_counted_as_a_sort_of_all_would(values: list[list[float]], data: st.DataObject) -> None:
    layers = [torch.tensor(each) for each in values]
    keeps = data.draw(st.lists(st.integers(0, sum(map(len, values))), min_size=1, max_size=3))
    assert cut_at(layers, keeps).kept() == [by_sorting(layers, keep) for keep in keeps]


@given(MODELS, st.data())
def test_a_threshold_keeps_at_least_what_the_cut_keeps_and_a_bin_too_many_at_most(
    values: list[list[float]], data: st.DataObject
) -> None:
    layers = [torch.tensor(each).abs() for each in values]
    keep = data.draw(st.integers(1, sum(map(len, values))))
    cuts = cut_at(layers, [keep])
    (floor,) = cuts.floors()
    (lowest,) = cuts.lowest()
    everything = torch.cat(layers)
    kept = everything[everything >= floor]
    assert len(kept) >= keep
    # Only those that share the bin of the lowest survivor can be too many: a 32nd of it at most, or denormals.
    exact = float(everything.sort(descending=True).values[keep - 1])
    assert float(torch.tensor(lowest, dtype=torch.int32).view(torch.float32)) == exact
    assert exact - float(kept.min()) <= max(exact / 32, 2.0**-131)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("magnitudes", [False, True])
def test_what_is_no_number_is_refused_by_name(value: float, magnitudes: bool) -> None:
    with pytest.raises(ValueError, match="layer1 holds values that are not finite numbers"):
        Histogram(torch.tensor([0.5, value]), "layer1", magnitudes)


def test_the_largest_numbers_there_are_are_finite() -> None:
    assert cut_at([torch.tensor([LARGEST, -LARGEST, 0.0])], [1]).kept() == [{"0": 1}]


@given(st.lists(VALUES, min_size=1, max_size=40), st.data())
def test_a_mask_of_the_largest_keeps_exactly_so_many_and_the_first_of_equal_ones(
    values: list[float], data: st.DataObject
) -> None:
    count = data.draw(st.integers(0, len(values)))
    weight = torch.tensor(values)
    order = sorted(range(len(values)), key=lambda place: (-abs(weight[place].item()), place))
    assert torch.nonzero(largest(weight, count)).flatten().tolist() == sorted(order[:count])


def test_scores_are_looked_at_in_parts_that_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = [torch.randn(size, generator=torch.Generator().manual_seed(size)) for size in (7, 64, 33)]
    whole, mask = cut_at(layers, [10, 90]).kept(), largest(layers[1], 20)
    monkeypatch.setattr(cut, "_LEAST_AT_ONCE", 5)
    assert cut_at(layers, [10, 90]).kept() == whole
    assert torch.equal(largest(layers[1], 20), mask)
