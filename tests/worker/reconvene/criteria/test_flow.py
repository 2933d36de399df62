"""The flow node by node against PyTorch's own backward pass, which holds the whole model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from reconvene_agent.worker.models.tracing import trace
from reconvene_agent.worker.reconvene.criteria.flow import Flow
from reconvene_agent.worker.reconvene.criteria.magnitudes import Magnitudes
from reconvene_agent.worker.reconvene.criteria.subject import Subject

OfModel = Callable[..., Subject]

WIDTH = 8
IMAGE = (3, 6, 6)


class Net(nn.Module):
    """A convolution, a piece of interest, another convolution, and the answer."""

    def __init__(self, piece: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTH, 3, padding=1, bias=False)
        self.piece = piece()
        self.last = nn.Conv2d(WIDTH, 5, 1, bias=False)
        self.answer = nn.Linear(5, 3, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        x = self.last(self.piece(self.stem(images)))
        return self.answer(x.mean((2, 3)))


class Function(nn.Module):
    """A piece with two convolutions of its own, and what becomes of the flow between them."""

    def __init__(self, function: Callable[[Any, Tensor], Tensor], **layers: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.one = nn.Conv2d(WIDTH, WIDTH, 1, bias=False)
        self.two = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False)
        for name, layer in layers.items():
            self.add_module(name, layer())
        self._function = function

    def forward(self, x: Tensor) -> Tensor:
        return self._function(self, x)


def halves(net: Any, x: Tensor) -> Tensor:
    first, second = net.one(x).chunk(2, 1)
    return net.two(torch.cat([second * second, first], 1))


def parts_joined_at_once(net: Any, x: Tensor) -> Tensor:
    return net.two(torch.cat(net.one(x).split(2, 1), 1))


def one_half_alone(net: Any, x: Tensor) -> Tensor:
    first = net.one(x).chunk(2, 1)[0]
    return net.two(torch.cat([first, first], 1))


def shaped_like_another(net: Any, x: Tensor) -> Tensor:
    one = net.one(x)
    return net.two(one.flatten(2).reshape(x.size()) + x)


def sides_computed(net: Any, x: Tensor) -> Tensor:
    one = net.one(x)
    side = -(1 - one.shape[2]) + 1
    return net.two(one.view(-1, WIDTH, side, one.shape[3]))


def multiplied(net: Any, x: Tensor) -> Tensor:
    x = functional.relu(net.one(x))
    return x * net.two(x)


def pooled(net: Any, x: Tensor) -> Tensor:
    return net.two(functional.max_pool2d(net.one(x), 3, 1, 1) + functional.avg_pool2d(x, 3, 1, 1))


def best_places(net: Any, x: Tensor) -> Tensor:
    values, _places = net.one(x).max(3, keepdim=True)
    return net.two(x * values)


def used_twice(net: Any, x: Tensor) -> Tensor:
    return net.two(net.one(functional.relu(net.one(x))))


PIECES = [
    halves,
    parts_joined_at_once,
    one_half_alone,
    shaped_like_another,
    sides_computed,
    multiplied,
    pooled,
    best_places,
    used_twice,
]


class Chain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(2, 6, 3, padding=1)
        self.second = nn.Conv1d(6, 4, 3)
        self.hidden = nn.Linear(4, 7)
        self.answer = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.second(functional.relu(self.first(x)))).amax(2)
        return self.answer(functional.relu(self.hidden(x)))


def drawn(build: Callable[[], nn.Module]) -> dict[str, Tensor]:
    """Return weights of a model, signs and all; biases are zero."""
    random = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(parameter.shape, generator=random) if parameter.dim() > 1 else torch.zeros(parameter.shape)
        for name, parameter in build().named_parameters()
    }


def flowed(subject: Subject, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Return the scores of every layer."""
    flow = Flow(trace(subject.model(), subject.input), Magnitudes(subject, dtype), subject.weights, dtype)
    assert flow.run()
    return {name: flow.scores(name) for name in subject.shapes}


def by_autograd(build: Callable[[], nn.Module], size: tuple[int, ...], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return |w · ∂R/∂w| / R of all weights but those of the answer, from an ordinary backward pass."""
    model = build().eval()
    model.load_state_dict({name: tensor.abs() for name, tensor in tensors.items()})
    total = model(torch.ones(1, *size)).sum()
    total.backward()
    return {
        name.removesuffix(".weight"): (parameter * parameter.grad / total).detach()
        for name, parameter in model.named_parameters()
        if name.endswith(".weight") and not name.startswith("answer")
    }


@pytest.mark.parametrize("function", PIECES, ids=lambda function: function.__name__)
def test_scores_are_those_of_a_backward_pass(of_model: OfModel, function: Callable[[Any, Tensor], Tensor]) -> None:
    def build() -> nn.Module:
        return Net(lambda: Function(function))

    expected = by_autograd(build, IMAGE, drawn(build))
    found = flowed(of_model(build, IMAGE, drawn(build)))
    assert found.keys() == expected.keys()
    for name in expected:
        assert expected[name].max() > 0
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-8)


def gated(net: Any, x: Tensor) -> Tensor:
    return net.two(net.one(x) * net.passing(x.mean((2, 3), keepdim=True)))


def between(net: Any, x: Tensor) -> Tensor:
    return net.two(net.passing(net.one(x)))


def normalized(_net: Any, x: Tensor) -> Tensor:
    return functional.layer_norm(x, (6,))


def saturated(_net: Any, x: Tensor) -> Tensor:
    return torch.clamp(torch.tanh(x), -1, 1).sigmoid()


ACTIVATIONS = [nn.ReLU6, nn.Hardtanh, nn.Sigmoid, nn.GELU, nn.Dropout, lambda: Wrapped(saturated)]
NORMS = [
    lambda: nn.BatchNorm2d(WIDTH),
    lambda: nn.GroupNorm(2, WIDTH),
    lambda: nn.InstanceNorm2d(WIDTH),
    lambda: nn.LayerNorm(6, elementwise_affine=False),
    lambda: Wrapped(normalized),
]


@pytest.mark.parametrize(
    ("function", "layer"),
    [*((gated, layer) for layer in ACTIVATIONS), *((between, layer) for layer in (*ACTIVATIONS, *NORMS))],
)
def test_what_would_normalise_or_stop_the_flow_lets_it_pass(
    of_model: OfModel, function: Callable[[Any, Tensor], Tensor], layer: Callable[[], nn.Module]
) -> None:
    def build(passing: Callable[[], nn.Module]) -> nn.Module:
        return Net(lambda: Function(function, passing=passing))

    free = flowed(of_model(lambda: build(nn.Identity), IMAGE, drawn(lambda: build(nn.Identity))))
    for name, found in flowed(of_model(lambda: build(layer), IMAGE, drawn(lambda: build(nn.Identity)))).items():
        assert torch.equal(found, free[name])


class Wrapped(nn.Module):
    def __init__(self, function: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self._function = function

    def forward(self, x: Tensor) -> Tensor:
        return self._function(self, x)


def test_the_flow_through_every_cut_of_a_chain_is_all_there_is(of_model: OfModel) -> None:
    for scores in flowed(of_model(Chain, (2, 9), drawn(Chain))).values():
        assert float(scores.sum()) == pytest.approx(1.0, rel=1e-5)
        assert (scores >= 0).all()


def test_what_flows_into_a_channel_flows_out_of_it(of_model: OfModel) -> None:
    scores = flowed(of_model(Chain, (2, 9), drawn(Chain)))
    torch.testing.assert_close(scores["first"].sum((1, 2)), scores["second"].sum((0, 2)))
    torch.testing.assert_close(scores["second"].sum((1, 2)), scores["hidden"].sum(0))


def test_a_layer_that_nothing_reads_has_no_share(of_model: OfModel) -> None:
    def unread(net: Any, x: Tensor) -> Tensor:
        net.one(x)
        return net.two(x)

    def build() -> nn.Module:
        return Net(lambda: Function(unread))

    scores = flowed(of_model(build, IMAGE, drawn(build)))
    assert not scores["piece.one"].any()
    assert float(scores["piece.two"].sum()) == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("by_hand", [False, True])
def test_query_key_and_value_of_an_attention_all_have_a_share(of_model: OfModel, by_hand: bool) -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key, self.value = (nn.Linear(4, 4, bias=False) for _ in range(3))
            self.answer = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            query, key, value = self.query(x), self.key(x), self.value(x)
            if by_hand:
                mixed = torch.softmax(query @ key.transpose(1, 2), -1) @ value
            else:
                mixed = functional.scaled_dot_product_attention(query, key, value)
            return self.answer(mixed.mean(1))

    scores = flowed(of_model(Attention, (5, 4), drawn(Attention)))
    assert all((scores[name] > 0).all() for name in ("query", "key", "value"))


@pytest.mark.parametrize("factor", [0.0, 1e-30, 1e30])
def test_a_sum_that_is_no_positive_number_is_told(of_model: OfModel, factor: float) -> None:
    weights = {name: tensor * factor for name, tensor in drawn(Chain).items()}
    subject = of_model(Chain, (2, 9), weights)
    flow = Flow(trace(subject.model(), subject.input), Magnitudes(subject, torch.float32), subject.weights, torch.float32)
    assert flow.run() is False
