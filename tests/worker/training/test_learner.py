from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.core.errors import UsageError
from reconvene_agent.worker.data.dataset import Dataset, Part, Skipped
from reconvene_agent.worker.reconvene.method import PrunedModel
from reconvene_agent.worker.training.learner import Learner, pieces_of
from support.models import architecture, pruned

Learners = Callable[..., Learner]
BATCH = torch.arange(32)


def free() -> None: ...


def weights(learner: Learner) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in learner.state().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class Plain(nn.Module):
    """No norms, so nothing depends on what else is in a batch; dropout in the middle."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.one = nn.Linear(spec.input[0], 16)
        self.drop = nn.Dropout(0.3)
        self.two = nn.Linear(16, 16)
        self.answer = nn.Linear(16, spec.classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.answer(torch.relu(self.two(self.drop(torch.relu(self.one(x))))))


@pytest.fixture(scope="module")
def rows() -> Dataset:
    draw = np.random.default_rng(0)
    parts = [
        Part(draw.standard_normal((count, 12), dtype=np.float32), np.arange(count, dtype=np.int64) % 3) for count in (64, 12)
    ]
    return Dataset(*parts, (), Skipped())


@pytest.fixture
def plain() -> Callable[[], PrunedModel]:
    def make() -> PrunedModel:
        with architecture(Plain, "plain-rows") as name:
            return pruned(ModelSpec(name, (12,), 3), 0.5)

    return make


def test_a_step_in_pieces_is_the_step_of_the_whole_batch(
    learner: Learners, plain: Callable[[], PrunedModel], rows: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nn.Dropout, "forward", lambda _self, x: x)
    whole, pieces = learner(plain(), rows, micro_batch=32), learner(plain(), rows, micro_batch=5)
    for number in range(3):
        losses = [each.step(number, BATCH, 0.05, free) for each in (whole, pieces)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for name, tensor in whole.state().items():
        torch.testing.assert_close(pieces.state()[name], tensor, rtol=1e-4, atol=1e-6)


def test_a_step_broken_off_between_pieces_has_never_been(learner: Learners) -> None:
    broken, other = learner(micro_batch=8), learner(micro_batch=8)
    for each in (broken, other):
        each.step(0, BATCH, 0.05, free)
    before = weights(broken)
    calls = 0

    def stop() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken.step(1, BATCH, 0.05, stop)
    assert same(weights(broken), before)
    for each in (broken, other):
        each.step(1, BATCH, 0.05, free)
    assert same(weights(broken), weights(other))


def test_what_dropout_draws_follows_from_seed_and_step(
    learner: Learners, plain: Callable[[], PrunedModel], rows: Dataset
) -> None:
    one, other, another = learner(plain(), rows), learner(plain(), rows), learner(plain(), rows, seed=1)
    for noise, each in enumerate((one, other, another)):
        torch.manual_seed(noise)
        before = torch.get_rng_state()
        each.step(0, BATCH, 0.05, free)
        assert torch.equal(torch.get_rng_state(), before), "torch's own numbers are left alone"
    assert same(weights(one), weights(other))
    assert not same(weights(one), weights(another))


def test_computing_anew_changes_nothing_but_the_memory(learner: Learners, net: PrunedModel) -> None:
    cuts = net.design.cuts()
    assert cuts
    one, other = learner(micro_batch=16), learner(net, micro_batch=16, recompute=True, cuts=cuts)
    for number in range(3):
        assert one.step(number, BATCH, 0.05, free) == other.step(number, BATCH, 0.05, free)
    assert same(weights(one), weights(other))


@pytest.mark.parametrize("settings", [{"channels_last": True}, {"precision": "bfloat16"}, {"spare": True}])
def test_other_ways_to_compute_learn_the_same(learner: Learners, settings: dict[str, object]) -> None:
    one, other = learner(), learner(**settings)
    losses = [[each.step(number, BATCH, 0.05, free) for number in range(8)] for each in (one, other)]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert all(parameter.dtype is torch.float32 for parameter in other.model.parameters())
    assert other.accuracy(other._data.validation, lambda _: None) == pytest.approx(
        one.accuracy(one._data.validation, lambda _: None), abs=0.2
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_that_of_the_whole_batch_with_its_targets_smoothed(
    learner: Learners, fresh: Callable[[], PrunedModel], data: Dataset, smoothing: float
) -> None:
    logits = fresh().module.train()(torch.from_numpy(data.normalized(data.train.inputs[:32])))
    classes = torch.from_numpy(data.train.classes[:32])
    expected = functional.cross_entropy(logits, classes, label_smoothing=smoothing)
    assert learner(label_smoothing=smoothing).step(0, BATCH, 0.05, free) == pytest.approx(float(expected.detach()), rel=1e-5)


def test_the_average_follows_the_weights_and_is_what_is_judged_and_kept(learner: Learners, net: PrunedModel) -> None:
    averaged = learner(net, ema=0.9)
    shadow = {name: parameter.detach().clone() for name, parameter in averaged.model.named_parameters()}
    for number in range(20):
        averaged.step(number, BATCH, 0.05, free)
        decay = min(0.9, (1 + number) / (10 + number))
        for name, parameter in averaged.model.named_parameters():
            shadow[name] = decay * shadow[name] + (1 - decay) * parameter.detach()
    state = averaged.state()
    for name, tensor in shadow.items():
        torch.testing.assert_close(state[f"average.{name}"], tensor)
    for name, mask in net.masks.items():
        assert torch.count_nonzero(state[f"average.{name}.weight"][~mask]) == 0
    judged = averaged.accuracy(averaged._data.validation, lambda _: None)
    averaged.note_best()
    model = averaged.become_best()
    inputs = torch.from_numpy(averaged._data.normalized(averaged._data.validation.inputs))
    with torch.inference_mode():
        right = (model(inputs).argmax(1).numpy() == averaged._data.validation.classes).mean()
    assert right == judged
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), shadow[name])


def test_the_best_is_kept_as_it_was(learner: Learners) -> None:
    each = learner()
    each.step(0, BATCH, 0.05, free)
    each.note_best()
    best = {name: tensor.clone() for name, tensor in each.model.state_dict().items()}
    each.step(1, BATCH, 0.05, free)
    assert not same(dict(each.model.state_dict()), best)
    model = each.become_best()
    assert same(dict(model.state_dict()), best)
    assert not model.training


def test_without_a_best_the_model_stays_what_it_is(learner: Learners) -> None:
    each = learner()
    before = {name: tensor.clone() for name, tensor in each.model.state_dict().items()}
    assert same(dict(each.become_best().state_dict()), before)


@pytest.mark.parametrize("options", [{}, {"ema": 0.9}])
def test_after_a_reset_it_learns_as_if_it_had_just_begun(
    learner: Learners, fresh: Callable[[], PrunedModel], options: dict[str, object]
) -> None:
    used, new = learner(**options), learner(**options)
    for number in range(3):
        used.step(number, BATCH, 0.05, free)
    used.note_best()
    used.reset(fresh())
    for each in (used, new):
        each.step(0, BATCH, 0.05, free)
    assert same(weights(used), weights(new))


def test_a_loss_that_is_no_number_changes_no_weight(learner: Learners, data: Dataset) -> None:
    each = learner()
    with torch.no_grad():
        each.model.get_parameter("classifier.bias").fill_(float("inf"))
    before = {name: parameter.detach().clone() for name, parameter in each.model.named_parameters()}
    assert not np.isfinite(each.step(0, BATCH, 0.05, free))
    assert all(torch.equal(parameter, before[name]) for name, parameter in each.model.named_parameters())


def test_a_change_that_is_not_for_images_is_refused(learner: Learners) -> None:
    with pytest.raises(UsageError, match="augment 'jitter' is not for a model of image inputs"):
        learner(augment="jitter")


@given(st.integers(2, 5000), st.integers(2, 600))
def test_pieces_are_small_enough_and_none_is_of_one_input(count: int, micro_batch: int) -> None:
    pieces = torch.tensor_split(torch.arange(count), pieces_of(count, micro_batch))
    sizes = [len(piece) for piece in pieces]
    assert sum(sizes) == count
    assert min(sizes) >= 2
    assert max(sizes) <= max(micro_batch, 3)
