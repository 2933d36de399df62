from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from reconvene_agent.worker.models import initial
from reconvene_agent.worker.models.weights import SeedWeights
from reconvene_agent.worker.reconvene.criteria import magnitude
from reconvene_agent.worker.reconvene.criteria.subject import Subject

OfWeights = Callable[[Mapping[str, Tensor]], Subject]

SPARSITIES = st.floats(0.0, 1.0, exclude_max=True)
# Few different values make many ties; both zeros, denormals and the largest numbers are where a histogram could go wrong.
AWKWARD = st.sampled_from([0.0, -0.0, 1.0, -1.0, 1.0 + 2**-23, 2.0**-149, -(2.0**-149), 2.0**-126, 3.4028234663852886e38])
VALUES = AWKWARD | st.floats(width=32, allow_nan=False, allow_infinity=False)
MODELS = st.lists(st.lists(VALUES, min_size=1, max_size=30), min_size=1, max_size=6)

SHAPES = st.lists(
    st.tuples(st.integers(1, 64), st.integers(1, 64), st.integers(1, 3), st.integers(1, 3)), min_size=1, max_size=6
).map(lambda shapes: {f"layer{index}": shape for index, shape in enumerate(shapes)})


def layers(values: list[list[float]]) -> dict[str, Tensor]:
    return {f"layer{index}": torch.tensor(each) for index, each in enumerate(values)}


def by_sorting(weights: Mapping[str, Tensor], sparsity: float) -> dict[str, int]:
    """Return the counts that a sort of all weights at once gives; of equal ones those of earlier layers survive."""
    owned = [(-abs(value), number, name) for number, name in enumerate(weights) for value in weights[name].flatten().tolist()]
    survivors = [name for _, _, name in sorted(owned)[: round((1.0 - sparsity) * len(owned))]]
    return {name: survivors.count(name) for name in weights}


def of_seed(shapes: Mapping[str, tuple[int, ...]], of_weights: OfWeights, seed: int = 0) -> Subject:
    """Return a subject of which nothing is shipped but the seed."""
    return replace(of_weights({}), shapes=shapes, weights=SeedWeights(seed), seed=seed)


@given(values=MODELS, sparsity=SPARSITIES)
def test_shipped_weights_are_counted_as_a_sort_of_all_would(
    of_weights: OfWeights, values: list[list[float]], sparsity: float
) -> None:
    assert magnitude(of_weights(layers(values)), [sparsity]) == [by_sorting(layers(values), sparsity)]


@given(values=MODELS, sparsities=st.lists(SPARSITIES, min_size=1, max_size=5))
def test_several_sparsities_at_once_count_as_one_by_one(
    of_weights: OfWeights, values: list[list[float]], sparsities: list[float]
) -> None:
    subject = of_weights(layers(values))
    assert magnitude(subject, sparsities) == [magnitude(subject, [sparsity])[0] for sparsity in sparsities]


@pytest.mark.parametrize("keep", range(7))
def test_ties_go_to_the_earlier_layer(of_weights: OfWeights, keep: int) -> None:
    subject = of_weights(layers([[0.5, 0.5], [0.5, -0.5], [0.5, 0.5]]))
    (kept,) = magnitude(subject, [1.0 - keep / 6])
    assert list(kept.values()) == [min(2, max(0, keep - 2 * index)) for index in range(3)]


def test_nothing_is_dropped_at_sparsity_0_and_almost_all_near_1(of_weights: OfWeights) -> None:
    dense, bare = magnitude(of_weights(layers([[0.1, 0.0], [0.2, 0.3, 0.0]])), [0.0, 0.999])
    assert dense == {"layer0": 2, "layer1": 3}
    assert bare == {"layer0": 0, "layer1": 0}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers_are_refused_by_name(of_weights: OfWeights, value: float) -> None:
    with pytest.raises(ValueError, match="layer1 holds values that are not finite numbers"):
        magnitude(of_weights(layers([[1.0], [0.5, value]])), [0.5])


def test_shipped_layers_are_read_twice_however_many_sparsities_are_asked_for_and_not_held(of_weights: OfWeights) -> None:
    shipped = {str(index): torch.randn(100, generator=torch.Generator().manual_seed(index)) for index in range(4)}
    subject = of_weights(shipped)
    given_out: list[weakref.ref[Tensor]] = []
    most = 0

    class Watched:
        shipped = True

        def weight(self, name: str, shape: tuple[int, ...]) -> Tensor:
            nonlocal most
            tensor = subject.weights.weight(name, shape)
            given_out.append(weakref.ref(tensor))
            most = max(most, sum(reference() is not None for reference in given_out))
            return tensor

    magnitude(replace(subject, weights=Watched()), [0.1, 0.5, 0.7, 0.9])  # type: ignore[arg-type]
    assert len(given_out) == 2 * len(shipped)
    assert most <= 2  # the next one is read before the last one's name is given to it


@given(shapes=SHAPES, sparsity=SPARSITIES)
def test_the_closed_form_keeps_exactly_the_budget(
    of_weights: OfWeights, shapes: dict[str, tuple[int, ...]], sparsity: float
) -> None:
    subject = of_seed(shapes, of_weights)
    (kept,) = magnitude(subject, [sparsity])
    assert sum(kept.values()) == round((1.0 - sparsity) * sum(math.prod(shape) for shape in shapes.values()))
    assert list(kept) == list(shapes)
    assert all(0 <= count <= subject.sizes[name] for name, count in kept.items())


@given(shapes=SHAPES, sparsity=SPARSITIES)
def test_one_threshold_explains_all_counts_of_the_closed_form(
    of_weights: OfWeights, shapes: dict[str, tuple[int, ...]], sparsity: float
) -> None:
    (kept,) = magnitude(of_seed(shapes, of_weights), [sparsity])
    fans = {name: math.prod(shape[1:]) for name, shape in shapes.items()}
    # Each count, one more and one less allow a range of thresholds: those of all layers must have one in common.
    low, high = 0.0, math.inf
    for name, count in kept.items():
        size = math.prod(shapes[name])
        low = max(low, _threshold(min(1.0, (count + 1) / size), fans[name]))
        high = min(high, _threshold(max(0.0, (count - 1) / size), fans[name]))
    assert low <= high * (1 + 1e-9)


def _threshold(density: float, fan: int) -> float:
    """Return t of erfc(t·√fan / 2) = density."""
    if density <= 0.0:
        return math.inf
    low, high = 0.0, 80.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if math.erfc(middle * math.sqrt(fan) / 2) > density else (low, middle)
    return low


def test_a_seeds_weights_are_never_drawn(of_weights: OfWeights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(initial, "kaiming_normal", lambda *_: pytest.fail("a weight was drawn"))
    assert magnitude(of_seed({"a": (512, 512, 3, 3)}, of_weights), [0.9]) == [{"a": 235_930}]


def test_the_closed_form_is_what_large_layers_draw(of_weights: OfWeights) -> None:
    shapes = {"wide": (256, 128, 3, 3), "first": (4000, 27), "point": (512, 256, 1, 1), "deep": (64, 512, 3, 3)}
    drawn = {name: initial.kaiming_normal(f"{name}.weight", shape, 3) for name, shape in shapes.items()}
    everything = torch.cat([weight.abs().flatten() for weight in drawn.values()]).sort(descending=True).values
    for expected in magnitude(of_seed(shapes, of_weights), [0.5, 0.9, 0.98]):
        threshold = everything[sum(expected.values())]
        for name, weight in drawn.items():
            density = int((weight.abs() > threshold).sum()) / weight.numel()
            assert density == pytest.approx(expected[name] / weight.numel(), abs=0.005), name
