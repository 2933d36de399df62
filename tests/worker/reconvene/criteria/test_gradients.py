"""SNIP and GraSP against straightforward ones: PyTorch's own backward pass, and a Hessian written out in full."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from reconvene_agent.core.errors import AgentError, ErrorCode, UsageError
from reconvene_agent.worker.models import initial
from reconvene_agent.worker.reconvene.criteria import CRITERIA, NEED_DATA, grasp, snip
from reconvene_agent.worker.reconvene.criteria.gradients import SAMPLES, TEMPERATURE
from reconvene_agent.worker.reconvene.criteria.subject import Subject

OfModel = Callable[..., Subject]

WINDOW = (2, 12)
CLASSES = 3
PRUNABLE = ("first", "second", "hidden")
BOTH = pytest.mark.parametrize("name", sorted(NEED_DATA))


class Small(nn.Module):
    """Two convolutions over time, a hidden layer and the answer: few enough weights for a whole Hessian."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(2, 4, 3, bias=False)
        self.norm = nn.BatchNorm1d(4)
        self.second = nn.Conv1d(4, 4, 3)
        self.hidden = nn.Linear(4, 6)
        self.answer = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.norm(self.first(x)))
        x = functional.relu(self.second(x)).mean(2)
        return self.answer(functional.relu(self.hidden(x)))


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(12, 12) for _ in range(3))
        self.answer = nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.answer(functional.scaled_dot_product_attention(self.query(x), self.key(x), self.value(x)).mean(1))


def weights_of(build: Callable[[], nn.Module]) -> dict[str, Tensor]:
    with torch.device("meta"):
        model = build()
    return dict(initial.materialize(model, 5).state_dict())


def sample(count: int) -> tuple[Tensor, Tensor]:
    """Return some windows, and classes that have to do with them."""
    inputs = torch.randn(count, *WINDOW, generator=torch.Generator().manual_seed(1))
    return inputs, inputs.mean((1, 2)).mul(7).long().remainder(CLASSES)


def arrays(count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the same as a data set would."""
    inputs, classes = sample(count)
    return inputs.numpy(), classes.numpy()


def loss_of(weights: dict[str, Tensor], parts: list[Tensor], temperature: float) -> Tensor:
    """Return the loss as a function of the prunable weights, the model in training mode."""
    inputs, classes = sample(SAMPLES)
    given = {**weights, **{f"{name}.weight": part for name, part in zip(PRUNABLE, parts, strict=True)}}
    given = {name: tensor.clone().to(parts[0].dtype) for name, tensor in given.items()}
    logits = functional_call(Small().train(), given, (inputs.to(parts[0].dtype),))
    return functional.cross_entropy(logits / temperature, classes)


def highest(scores: dict[str, Tensor], keep: int) -> dict[str, int]:
    """Return how many of each layer are among the highest scores of all."""
    owners = torch.cat([torch.full((score.numel(),), index) for index, score in enumerate(scores.values())])
    order = torch.cat([score.flatten() for score in scores.values()]).sort(descending=True).indices[:keep]
    counts = torch.bincount(owners[order], minlength=len(scores)).tolist()
    return dict(zip(scores, counts, strict=True))


SPARSITIES = [0.3, 0.5, 0.7, 0.9]


def test_snip_is_the_magnitude_of_weight_times_gradient(of_model: OfModel) -> None:
    weights = weights_of(Small)
    parts = [weights[f"{name}.weight"].clone().requires_grad_() for name in PRUNABLE]
    loss_of(weights, parts, 1.0).backward()
    scores = {name: (part * part.grad).detach().abs() for name, part in zip(PRUNABLE, parts, strict=True)}
    subject = of_model(Small, WINDOW, weights, arrays)
    assert snip(subject, SPARSITIES) == [highest(scores, subject.keep(sparsity)) for sparsity in SPARSITIES]


def test_grasp_is_weight_times_hessian_times_gradient(of_model: OfModel) -> None:
    weights = weights_of(Small)
    shapes = [weights[f"{name}.weight"].shape for name in PRUNABLE]
    sizes = [shape.numel() for shape in shapes]

    def loss(flat: Tensor) -> Tensor:
        return loss_of(weights, [part.view(shape) for part, shape in zip(flat.split(sizes), shapes, strict=True)], TEMPERATURE)

    flat = torch.cat([weights[f"{name}.weight"].flatten() for name in PRUNABLE])
    gradient = torch.autograd.functional.jacobian(loss, flat)
    hessian = torch.autograd.functional.hessian(loss, flat)
    scores = dict(zip(PRUNABLE, (flat * (hessian @ gradient)).split(sizes), strict=True))
    subject = of_model(Small, WINDOW, weights, arrays)
    assert any((score < 0).any() for score in scores.values())
    for found, sparsity in zip(grasp(subject, SPARSITIES), SPARSITIES, strict=True):
        expected = highest(scores, subject.keep(sparsity))
        # The two sums are taken in another order: a weight at the very cut may fall on the other side.
        assert all(abs(found[name] - expected[name]) <= 1 for name in PRUNABLE)
        assert sum(found.values()) == sum(expected.values())


def test_what_grasp_removes_would_add_to_the_gradient_flow(of_model: OfModel) -> None:
    """Weights of negative score resist training: without them |g|² grows, which the first order of the score foretells."""
    weights = weights_of(Small)

    def flow(scale: dict[str, Tensor]) -> float:
        parts = [(weights[f"{name}.weight"].double() * scale[name]).requires_grad_() for name in PRUNABLE]
        gradients = torch.autograd.grad(loss_of(weights, parts, TEMPERATURE), parts)
        return float(sum((gradient**2).sum() for gradient in gradients))

    ones = {name: torch.ones_like(weights[f"{name}.weight"], dtype=torch.float64) for name in PRUNABLE}
    rest = flow(ones)
    step = 1e-4
    subject = of_model(Small, WINDOW, weights, arrays)
    scores = {}
    for name in PRUNABLE:
        change = torch.empty_like(ones[name]).view(-1)
        for place in range(len(change)):
            less = ones[name].clone()
            less.view(-1)[place] -= step
            change[place] = (flow({**ones, name: less}) - rest) / step
        scores[name] = -change
    # Finite differences blur the very cut.
    (found,) = grasp(subject, [0.5])
    expected = highest(scores, subject.keep(0.5))
    assert all(abs(found[name] - expected[name]) <= 2 for name in PRUNABLE)


@BOTH
def test_scores_of_an_attention_are_found(of_model: OfModel, name: str) -> None:
    subject = of_model(Attending, WINDOW, weights_of(Attending), arrays)
    (kept,) = CRITERIA[name](subject, [0.5])
    assert sum(kept.values()) == 216
    assert kept["value"] > 0


@BOTH
def test_without_data_the_option_to_name_some_is_told(of_model: OfModel, name: str) -> None:
    with pytest.raises(UsageError, match=f"the criterion {name} scores by the loss on local data: name some with --data"):
        CRITERIA[name](of_model(Small, WINDOW, weights_of(Small)), [0.5])


def figures(error: AgentError) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"(\d+) MiB", error.message)))


@BOTH
def test_too_little_memory_is_told_with_what_is_needed_and_what_there_is(of_model: OfModel, name: str) -> None:
    subject = of_model(Small, (2, 20_000), weights_of(Small), lambda _: pytest.fail("data were drawn"), memory_mb=3.0)
    with pytest.raises(AgentError, match="take magnitude, erk or synflow, which never hold it") as caught:
        CRITERIA[name](subject, [0.5])
    assert caught.value.code is ErrorCode.NO_MEMORY
    needed, allowed = figures(caught.value)
    assert allowed == 3
    # Six activations of four channels and the input, 128 times, with their gradients.
    assert needed > 128 * 20_000 * (2 + 4 * 4) * 4 * 2 / 2**20


def test_second_derivatives_need_more_memory_than_first_ones(of_model: OfModel) -> None:
    subject = of_model(Small, (2, 20_000), weights_of(Small), arrays, memory_mb=3.0)
    needed = {}
    for name in NEED_DATA:
        with pytest.raises(AgentError) as caught:
            CRITERIA[name](subject, [0.5])
        needed[name] = figures(caught.value)[0]
    assert needed["grasp"] > needed["snip"]


@BOTH
def test_enough_memory_makes_no_difference(of_model: OfModel, name: str) -> None:
    subject = of_model(Small, WINDOW, weights_of(Small), arrays)
    assert CRITERIA[name](replace(subject, memory_mb=100.0), [0.5]) == CRITERIA[name](subject, [0.5])


@BOTH
def test_several_sparsities_at_once_count_as_one_by_one(of_model: OfModel, name: str) -> None:
    subject = of_model(Small, WINDOW, weights_of(Small), arrays)
    together = CRITERIA[name](subject, [0.0, 0.5, 0.999])
    assert together == [CRITERIA[name](subject, [sparsity])[0] for sparsity in (0.0, 0.5, 0.999)]
    assert together[0] == subject.sizes


@BOTH
def test_scores_that_are_no_numbers_are_told(of_model: OfModel, name: str) -> None:
    weights = weights_of(Small)
    weights["second.weight"] = weights["second.weight"] * 1e30
    weights["hidden.weight"] = weights["hidden.weight"] * 1e30
    with pytest.raises(ValueError, match="holds values that are not finite numbers"):
        CRITERIA[name](of_model(Small, WINDOW, weights, arrays), [0.5])
