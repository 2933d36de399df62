from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from reconvene_agent.worker.models import registry
from reconvene_agent.worker.reconvene.criteria import CRITERIA, erk, random, uniform
from reconvene_agent.worker.reconvene.criteria.subject import Subject
from reconvene_agent.worker.reconvene.method import structure_of
from reconvene_agent.worker.reconvene.preprocessor import prunable
from support.models import VGG16

OfWeights = Callable[[Mapping[str, Tensor]], Subject]
Shapes = dict[str, tuple[int, ...]]

SPARSITIES = st.floats(0.0, 1.0, exclude_max=True)
SHAPES = st.lists(
    st.tuples(st.integers(1, 128), st.integers(1, 128))
    | st.tuples(st.integers(1, 64), st.integers(1, 64), st.integers(1, 5), st.integers(1, 5)),
    min_size=1,
    max_size=8,
).map(lambda shapes: {f"layer{index}": shape for index, shape in enumerate(shapes)})
BY_SHAPE = ("random", "uniform", "erk")


def subject_of(of_weights: OfWeights, shapes: Shapes, seed: int = 0) -> Subject:
    return replace(of_weights({}), shapes=shapes, seed=seed)


def vgg16() -> Shapes:
    return prunable(registry.build(VGG16), structure_of(VGG16))


@pytest.mark.parametrize("name", BY_SHAPE)
@given(shapes=SHAPES, sparsity=SPARSITIES)
def test_exactly_the_budget_is_kept_and_no_layer_has_more_than_its_weights(
    of_weights: OfWeights, name: str, shapes: Shapes, sparsity: float
) -> None:
    subject = subject_of(of_weights, shapes)
    (kept,) = CRITERIA[name](subject, [sparsity])
    assert sum(kept.values()) == round((1.0 - sparsity) * sum(subject.sizes.values()))
    assert list(kept) == list(shapes)
    assert all(0 <= count <= subject.sizes[layer] for layer, count in kept.items())


@pytest.mark.parametrize("name", BY_SHAPE)
def test_several_sparsities_at_once_count_as_one_by_one(of_weights: OfWeights, name: str) -> None:
    subject = subject_of(of_weights, vgg16())
    sparsities = [0.98, 0.0, 0.5]
    assert CRITERIA[name](subject, sparsities) == [CRITERIA[name](subject, [each])[0] for each in sparsities]


def test_random_counts_are_those_of_the_seed(of_weights: OfWeights) -> None:
    one, same, other = (random(subject_of(of_weights, vgg16(), seed), [0.9]) for seed in (1, 1, 2))
    assert one == same != other


def test_random_scores_leave_every_layer_about_the_same_density(of_weights: OfWeights) -> None:
    subject = subject_of(of_weights, vgg16())
    (kept,) = random(subject, [0.9])
    densities = {name: count / subject.sizes[name] for name, count in kept.items()}
    for name, density in densities.items():
        assert density == pytest.approx(0.1, abs=5 * math.sqrt(0.1 * 0.9 / subject.sizes[name])), name
    assert len(set(densities.values())) > 10  # drawn, and not dealt out


def test_random_counts_scatter_as_those_of_random_scores_would(of_weights: OfWeights) -> None:
    # Of 100 + 300 weights 100 stay: hypergeometric, with mean 25 and variance 100·¼·¾·(300/399) = 14.1 in the first layer.
    subject = subject_of(of_weights, {"small": (10, 10), "large": (30, 10)})
    drawn = [random(replace(subject, seed=seed), [0.75])[0]["small"] for seed in range(400)]
    mean = sum(drawn) / 400
    assert mean == pytest.approx(25, abs=1)
    assert sum((count - mean) ** 2 for count in drawn) / 399 == pytest.approx(14.1, rel=0.3)


@given(shapes=SHAPES, sparsity=SPARSITIES)
def test_uniform_densities_differ_by_less_than_a_weight(of_weights: OfWeights, shapes: Shapes, sparsity: float) -> None:
    (kept,) = uniform(subject_of(of_weights, shapes), [sparsity])
    for name, count in kept.items():
        assert abs(count - (1.0 - sparsity) * math.prod(shapes[name])) < 1 + 1e-6


def literal_erk(shapes: Shapes, sparsity: float) -> dict[str, float]:
    """Return the densities of Evci et al. 2020, section 3, as their published code finds them: ε by adding dense layers.

    There a layer is (height, width, in, out) and its raw probability the sum of the four over their product; the layers
    with the largest one become dense, one step at a time, until ε · raw is at most 1 for all others.
    """
    raw = {name: sum(shape) / math.prod(shape) for name, shape in shapes.items()}
    dense: set[str] = set()
    while True:
        right_hand_side = divisor = 0.0
        for name, shape in shapes.items():
            zeros = math.prod(shape) * sparsity
            ones = math.prod(shape) * (1 - sparsity)
            if name in dense:
                right_hand_side -= zeros
            else:
                right_hand_side += ones
                divisor += raw[name] * math.prod(shape)
        epsilon = right_hand_side / divisor if divisor else 0.0
        rest = [raw[name] for name in shapes if name not in dense]
        if not rest or max(rest) * epsilon <= 1.0:
            return {name: 1.0 if name in dense else epsilon * raw[name] for name in shapes}
        dense |= {name for name in shapes if name not in dense and raw[name] == max(rest)}


@given(shapes=SHAPES, sparsity=st.floats(0.0, 0.999))
def test_erk_is_the_papers_formula(of_weights: OfWeights, shapes: Shapes, sparsity: float) -> None:
    (kept,) = erk(subject_of(of_weights, shapes), [sparsity])
    for name, density in literal_erk(shapes, sparsity).items():
        assert abs(kept[name] - density * math.prod(shapes[name])) < 2, name


def test_erk_keeps_the_small_first_convolution_dense_and_empties_the_large_ones(of_weights: OfWeights) -> None:
    shapes = vgg16()
    (kept,) = erk(subject_of(of_weights, shapes), [0.9])
    densities = {name: count / math.prod(shapes[name]) for name, count in kept.items()}
    names = list(densities)
    assert densities[names[0]] == 1.0
    assert densities[names[1]] == max(densities[name] for name in names[1:]) < 1.0
    assert max(densities[name] for name in names[-3:]) < 0.09
    # A density is in proportion to (512 + 512 + 3 + 3) / (512·512·9), against (256 + 256 + 3 + 3) / (256·256·9).
    assert densities[names[-1]] / densities[names[5]] == pytest.approx((1030 / 512**2) / (518 / 256**2), rel=1e-3)


def test_a_layer_of_few_weights_is_dense_before_all_others(of_weights: OfWeights) -> None:
    shapes: Shapes = {"wide": (100, 100), "thin": (1, 50)}
    (kept,) = erk(subject_of(of_weights, shapes), [0.9])
    assert kept == {"wide": 955, "thin": 50}
