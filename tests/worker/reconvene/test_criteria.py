from __future__ import annotations

import weakref
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from reconvene_agent.worker.reconvene import criteria

SPARSITIES = st.floats(0.0, 1.0, exclude_max=True)
# Ties, both zeros, denormals and the largest numbers are drawn often; they are where a histogram could go wrong.
AWKWARD = st.sampled_from([0.0, -0.0, 1.0, -1.0, 1.0 + 2**-23, 2.0**-149, -(2.0**-149), 2.0**-126, 3.4028234663852886e38])
VALUES = AWKWARD | st.floats(width=32, allow_nan=False, allow_infinity=False)
MODELS = st.lists(st.lists(VALUES, min_size=1, max_size=30), min_size=1, max_size=6)


def readers(layers: list[list[float]]) -> criteria.Layers:
    tensors = {f"layer{index}": torch.tensor(values, dtype=torch.float32) for index, values in enumerate(layers)}
    return {name: tensor.clone for name, tensor in tensors.items()}


def by_sorting(layers: list[list[float]], sparsity: float) -> dict[str, int]:
    """Return the counts that a sort of all weights at once gives."""
    owned = [(-abs(value), index) for index, values in enumerate(layers) for value in torch.tensor(values).tolist()]
    keep = round((1.0 - sparsity) * len(owned))
    survivors = [index for _, index in sorted(owned)[:keep]]
    return {f"layer{index}": survivors.count(index) for index in range(len(layers))}


@given(MODELS, SPARSITIES)
def test_magnitude_counts_as_a_sort_of_all_weights_would(layers: list[list[float]], sparsity: float) -> None:
    assert criteria.magnitude(readers(layers), [sparsity]) == [by_sorting(layers, sparsity)]


@given(MODELS, st.lists(SPARSITIES, min_size=1, max_size=5))
def test_several_sparsities_at_once_count_as_one_by_one(layers: list[list[float]], sparsities: list[float]) -> None:
    together = criteria.magnitude(readers(layers), sparsities)
    assert together == [criteria.magnitude(readers(layers), [sparsity])[0] for sparsity in sparsities]


@pytest.mark.parametrize("keep", range(7))
def test_ties_go_to_the_earlier_layer(keep: int) -> None:
    layers = [[0.5, 0.5], [0.5, -0.5], [0.5, 0.5]]
    (kept,) = criteria.magnitude(readers(layers), [1.0 - keep / 6])
    assert list(kept.values()) == [min(2, max(0, keep - 2 * index)) for index in range(3)]


def test_nothing_is_dropped_at_sparsity_0_and_almost_all_near_1() -> None:
    layers = [[0.1, 0.0], [0.2, 0.3, 0.0]]
    dense, bare = criteria.magnitude(readers(layers), [0.0, 0.999])
    assert dense == {"layer0": 2, "layer1": 3}
    assert bare == {"layer0": 0, "layer1": 0}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers_are_refused_by_name(value: float) -> None:
    with pytest.raises(ValueError, match="layer1 holds weights that are not finite"):
        criteria.magnitude(readers([[1.0], [0.5, value]]), [0.5])


def test_layers_are_read_twice_however_many_sparsities_are_asked_for_and_not_held() -> None:
    weights = torch.randn(4, 100, generator=torch.Generator().manual_seed(0))
    given_out: list[weakref.ref[Tensor]] = []
    most = 0

    def read(index: int) -> Tensor:
        nonlocal most
        tensor = weights[index].clone()
        given_out.append(weakref.ref(tensor))
        most = max(most, sum(reference() is not None for reference in given_out))
        return tensor

    layers = {str(index): partial(read, index) for index in range(4)}
    criteria.magnitude(layers, [0.1, 0.5, 0.7, 0.9])
    assert len(given_out) == 2 * len(layers)
    assert most <= 2  # the next one is read before the last one's name is given to it
