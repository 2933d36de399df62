from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from reconvene_agent.worker.models import initial, registry
from reconvene_agent.worker.reconvene.criteria import synflow
from reconvene_agent.worker.reconvene.criteria.magnitudes import Magnitudes
from reconvene_agent.worker.reconvene.criteria.subject import Subject
from reconvene_agent.worker.reconvene.criteria.synflow import CUTS_PER_DECADE, schedule
from reconvene_agent.worker.reconvene.method import structure_of
from reconvene_agent.worker.reconvene.preprocessor import prunable
from support.models import TINY_RESNET, opened

OfModel = Callable[..., Subject]

IMAGE = (3, 8, 8)
TINY_MB = 1e-6


class Residual(nn.Module):
    """A small residual net: stem, a block with a shortcut, a wide layer, the answer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(12)
        self.one = nn.Conv2d(12, 12, 3, padding=1, bias=False)
        self.two = nn.Conv2d(12, 12, 3, padding=1, bias=False)
        self.wide = nn.Conv2d(12, 48, 3, stride=2, padding=1, bias=False)
        self.answer = nn.Linear(48, 5)

    def forward(self, images: Tensor) -> Tensor:
        x = functional.relu(self.norm(self.stem(images)))
        x = functional.relu(x + self.two(functional.relu(self.one(x))))
        return self.answer(functional.relu(self.wide(x)).mean((2, 3)))


PRUNABLE = ("stem", "one", "two", "wide")


class Deep(nn.Module):
    """Many layers, whose magnitudes multiply to more, or to less, than a float32 can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.Linear(6, 6, bias=False) for _ in range(40)))
        self.answer = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.answer(self.layers(x))


def weights_of(build: Callable[[], nn.Module], factor: float = 1.0) -> dict[str, Tensor]:
    model = initial.materialize(_on_meta(build), 7)
    return {name: tensor * factor if tensor.dim() > 1 else tensor for name, tensor in model.state_dict().items()}


def _on_meta(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.device("meta"):
        return build()


def plain(weights: dict[str, Tensor], sparsity: float) -> dict[str, int]:
    """Return what SynFlow keeps, as the paper's algorithm 1 has it: all weights at once, and PyTorch's own backward pass."""
    left = {name: weights[f"{name}.weight"].double().abs() for name in PRUNABLE}
    answer = weights["answer.weight"].double().abs()
    total = sum(weight.numel() for weight in left.values())
    fewest = round(total * (1 - sparsity))
    for keep in [*schedule(fewest, total), fewest]:
        variables = {name: weight.clone().requires_grad_() for name, weight in left.items()}
        x = functional.conv2d(torch.ones(1, *IMAGE, dtype=torch.float64), variables["stem"], padding=1)
        x = x + functional.conv2d(functional.conv2d(x, variables["one"], padding=1), variables["two"], padding=1)
        x = functional.conv2d(x, variables["wide"], stride=2, padding=1)
        functional.linear(x.mean((2, 3)), answer).sum().backward()
        scores = torch.cat([(variable * variable.grad).detach().flatten() for variable in variables.values()])
        mask = torch.zeros(total, dtype=torch.bool)
        mask[scores.sort(descending=True).indices[:keep]] = True
        masks = mask.split([weight.numel() for weight in left.values()])
        left = {name: weight * part.view(weight.shape) for (name, weight), part in zip(left.items(), masks, strict=True)}
    return {name: int((weight > 0).sum()) for name, weight in left.items()}


@pytest.mark.parametrize("memory_mb", [None, TINY_MB], ids=["kept", "streamed"])
@pytest.mark.parametrize("sparsity", [0.5, 0.9, 0.99])
def test_the_counts_are_those_of_a_plain_synflow(of_model: OfModel, sparsity: float, memory_mb: float | None) -> None:
    weights = weights_of(Residual)
    subject = of_model(Residual, IMAGE, weights, memory_mb=memory_mb)
    (found,) = synflow(subject, [sparsity])
    expected = plain(weights, sparsity)
    assert sum(found.values()) == sum(expected.values()) == round((1 - sparsity) * sum(subject.sizes.values()))
    for name, size in subject.sizes.items():
        # On the way a cut keeps a bin's width too many, which may move a few weights from one layer to another.
        assert found[name] == pytest.approx(expected[name], abs=max(2, 0.01 * size)), name


def test_one_cut_alone_keeps_exactly_the_highest_scores(of_model: OfModel) -> None:
    weights = weights_of(Residual)
    subject = of_model(Residual, IMAGE, weights)
    assert not schedule(subject.keep(0.1), sum(subject.sizes.values()))
    assert synflow(subject, [0.1]) == [plain(weights, 0.1)]


def test_weights_that_are_read_anew_each_time_give_the_same_counts(of_model: OfModel) -> None:
    weights = weights_of(Residual)
    kept, streamed = (of_model(Residual, IMAGE, weights, memory_mb=memory_mb) for memory_mb in (1000.0, TINY_MB))
    assert synflow(kept, [0.7, 0.98]) == synflow(streamed, [0.7, 0.98])


def test_weights_are_read_once_where_memory_allows_and_one_layer_at_a_time_where_not(of_model: OfModel) -> None:
    subject = of_model(Residual, IMAGE, weights_of(Residual))
    reads: list[str] = []

    class Counted:
        shipped = True

        def weight(self, name: str, shape: tuple[int, ...]) -> Tensor:
            reads.append(name)
            return subject.weights.weight(name, shape)

    watched = replace(subject, weights=Counted())  # type: ignore[arg-type]
    synflow(watched, [0.9])
    assert all(reads.count(f"{name}.weight") == 1 for name in PRUNABLE)
    reads.clear()
    synflow(replace(watched, memory_mb=TINY_MB), [0.9])
    assert all(reads.count(f"{name}.weight") >= CUTS_PER_DECADE for name in PRUNABLE)


@pytest.mark.parametrize("memory_mb", [None, TINY_MB], ids=["kept", "streamed"])
def test_a_weight_once_cut_away_never_comes_back(of_model: OfModel, memory_mb: float | None) -> None:
    subject = of_model(Residual, IMAGE, weights_of(Residual), memory_mb=memory_mb)
    left = Magnitudes(subject, torch.float32)
    whole = left.read("one").clone()
    first = torch.rand(whole.shape, generator=torch.Generator().manual_seed(0)) > 0.3
    left.keep("one", first)
    assert torch.equal(left.read("one"), whole * first)
    left.keep("one", torch.ones_like(first))
    assert torch.equal(left.read("one"), whole * first)


@pytest.mark.parametrize("sparsity", [0.9, 0.99])
def test_no_layer_is_ever_emptied(sparsity: float) -> None:
    spec = TINY_RESNET
    bundle = opened(spec)
    shapes = prunable(registry.build(spec), structure_of(spec))
    subject = Subject(shapes, bundle.weights, 0, lambda: registry.build(spec), spec.input)
    (kept,) = synflow(subject, [sparsity])
    assert sum(kept.values()) == subject.keep(sparsity)
    assert min(kept.values()) >= 1


@pytest.mark.parametrize("factor", [1e3, 1e-3])
def test_a_net_too_deep_for_single_precision_is_scored_in_double(of_model: OfModel, factor: float) -> None:
    assert not 2.0**-149 < factor**40 < 2.0**128
    found = synflow(of_model(Deep, (6,), weights_of(Deep, factor)), [0.5, 0.8])
    # A factor common to all weights changes no share.
    assert [sum(kept.values()) for kept in found] == [720, 288]
    assert all(min(kept.values()) >= 1 for kept in found)
    assert found == synflow(of_model(Deep, (6,), weights_of(Deep, 0.5)), [0.5, 0.8])


@pytest.mark.parametrize("factor", [1e30, 1e-30, 0.0])
def test_a_net_without_a_path_is_told(of_model: OfModel, factor: float) -> None:
    with pytest.raises(ValueError, match="synflow finds no path through the model"):
        synflow(of_model(Deep, (6,), weights_of(Deep, factor)), [0.5])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_no_numbers_are_refused_by_name(of_model: OfModel, value: float) -> None:
    weights = weights_of(Residual)
    weights["two.weight"][3, 2, 1, 0] = value
    with pytest.raises(ValueError, match="two holds values that are not finite numbers"):
        synflow(of_model(Residual, IMAGE, weights), [0.5])


def test_all_sparsities_are_passed_on_one_way(of_model: OfModel) -> None:
    subject = of_model(Residual, IMAGE, weights_of(Residual))
    dense, half, most = synflow(subject, [0.0, 0.5, 0.95])
    assert dense == subject.sizes
    assert [sum(kept.values()) for kept in (half, most)] == [subject.keep(0.5), subject.keep(0.95)]
    assert all(half[name] >= most[name] for name in subject.sizes)


def test_nothing_is_kept_where_nothing_is_asked_for(of_model: OfModel) -> None:
    subject = of_model(Residual, IMAGE, weights_of(Residual))
    assert synflow(subject, [0.9999999]) == [dict.fromkeys(PRUNABLE, 0)]


def test_cuts_keep_equal_shares_of_what_is_left() -> None:
    steps = schedule(99, 100_000)
    assert len(steps) == 3 * CUTS_PER_DECADE
    assert steps[-1] == 100
    ratios = [later / earlier for earlier, later in zip([100_000, *steps], steps, strict=False)]
    assert ratios == pytest.approx([10 ** (-1 / CUTS_PER_DECADE)] * len(steps), rel=0.02)
    assert schedule(0, 3)[-1] == 1


@pytest.mark.parametrize("others", [[0.5, 0.99], [0.05], [0.85, 0.87]])
def test_what_one_sparsity_keeps_does_not_depend_on_what_else_is_asked_for(of_model: OfModel, others: list[float]) -> None:
    subject = of_model(Residual, IMAGE, weights_of(Residual))
    assert synflow(subject, [0.86, *others])[0] == synflow(subject, [0.86])[0]


def test_how_far_it_is_is_told_and_it_can_be_stopped(of_model: OfModel) -> None:
    shares: list[float] = []
    subject = replace(of_model(Residual, IMAGE, weights_of(Residual)), report=shares.append)
    synflow(subject, [0.9])
    assert shares == sorted(shares)
    assert (shares[0], len(shares)) == (0.0, CUTS_PER_DECADE)

    def stop(share: float) -> None:
        if share > 0.5:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        synflow(replace(subject, report=stop), [0.9])
