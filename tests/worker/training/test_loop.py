from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.core.options import TrainingOptions
from reconvene_agent.worker.data.dataset import Dataset, Part, Skipped
from reconvene_agent.worker.data.load import load
from reconvene_agent.worker.reconvene.method import PrunedModel
from reconvene_agent.worker.training import loop
from reconvene_agent.worker.training.checkpoint import Checkpoint
from reconvene_agent.worker.training.interval import Interval
from reconvene_agent.worker.training.loop import Epoch, Interrupted
from support.disks import fill, tiny_disk
from support.models import TINY_VGG, pruned
from support.pictures import DIGITS
from support.training import OPTIONS, Run, quiet, with_options


class Stop(Exception):  # noqa: N818 - a reason, not an error
    pass


def stop_at(place: int) -> Callable[[float, str], None]:
    """Return a report that interrupts the run when it has been called so often; every step calls it twice, once in its middle."""
    heard = 0

    def report(_fraction: float, note: str) -> None:
        nonlocal heard
        if not note.startswith("evaluating"):
            heard += 1
            if heard == place + 1:
                raise Interrupted(Stop())

    return report


def weights(model: PrunedModel) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.module.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_a_pruned_network_learns_the_digits(tmp_path: Path) -> None:
    data = load(DIGITS, TINY_VGG, (), 0.2, quiet)
    model = pruned(TINY_VGG, 0.9)
    options = TrainingOptions(epochs=4, batch=64, learning_rate=0.05, augment="none")
    run = Run(model, data, tmp_path, options)
    position = run.to_the_end()
    assert [epoch.number for epoch in run.epochs] == [1, 2, 3, 4]
    assert run.epochs[-1].loss < run.epochs[0].loss / 3
    assert run.epochs[-1].accuracy > 0.9
    assert run.learner.accuracy(data.validation, lambda _: None) == position.best_accuracy


def test_masks_hold_through_training_with_momentum_and_decay(net: PrunedModel, data: Dataset, tmp_path: Path) -> None:
    assert net.masks
    before = {name: int(torch.count_nonzero(net.module.get_parameter(f"{name}.weight"))) for name in net.masks}
    assert before == net.design.mask_sizes
    Run(net, data, tmp_path, with_options(weight_decay=0.1, epochs=6)).to_the_end()
    for name, mask in net.masks.items():
        weight = net.module.get_parameter(f"{name}.weight")
        assert torch.count_nonzero(weight[~mask]) == 0
        assert int(torch.count_nonzero(weight)) == before[name]


STEPS = 3 * 5  # three epochs of 150 images, 32 at a time


@settings(max_examples=12)
@given(stops=st.lists(st.integers(0, 2 * STEPS - 1), min_size=1, max_size=3))
def test_a_run_stopped_anywhere_and_resumed_ends_with_the_same_bits(
    stops: list[int], fresh: Callable[[], PrunedModel], data: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole, parts = fresh(), fresh()
    undisturbed = Run(whole, data, tmp_path_factory.mktemp("whole"))
    undisturbed.to_the_end()
    folder = tmp_path_factory.mktemp("parts")
    epochs: list[Epoch] = []
    for stop in stops:
        run = Run(parts, data, folder)
        with suppress(Interrupted):  # the last of them may lie behind the end
            run.to_the_end(stop_at(stop))
        epochs += run.epochs
        parts = fresh()
    run = Run(parts, data, folder)
    position = run.to_the_end()
    assert position.step == STEPS
    assert epochs + run.epochs == undisturbed.epochs
    assert same(weights(parts), weights(whole))


@pytest.mark.parametrize("seconds", [0.0, 1e9], ids=["after every step", "never but at the start"])
def test_a_run_that_is_killed_goes_on_from_its_last_checkpoint_to_the_same_bits(
    seconds: float, fresh: Callable[[], PrunedModel], data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(Exception):  # noqa: N818 - nothing of ours catches it
        pass

    def kill_at(place: int) -> Callable[[float, str], None]:
        calls = iter(range(place + 1))

        def report(*_: object) -> None:
            if next(calls) == place:
                raise Killed

        return report

    monkeypatch.setattr(Interval, "stored", lambda self, spent, _cost: setattr(self, "_due", spent + seconds))
    whole = fresh()
    Run(whole, data, tmp_path).to_the_end()
    for place in (1, 12, 25, 31):
        folder = tmp_path / str(place)
        folder.mkdir()
        with pytest.raises(Killed):
            Run(fresh(), data, folder).to_the_end(kill_at(place))
        last = fresh()
        assert Run(last, data, folder).to_the_end().step == STEPS
        assert same(weights(last), weights(whole))


def test_stopping_keeps_every_step_that_was_done(net: PrunedModel, data: Dataset, tmp_path: Path) -> None:
    run = Run(net, data, tmp_path)
    with pytest.raises(Interrupted) as caught:
        run.to_the_end(stop_at(15))  # in the middle of the eighth step
    assert isinstance(caught.value.reason, Stop)
    position = Checkpoint(tmp_path / "checkpoint", "f" * 64).restore(run.learner)
    assert (position.step, position.epochs) == (7, 1)
    assert position.seconds > 0


def test_a_run_stopped_while_an_epoch_is_judged_judges_it_later(
    fresh: Callable[[], PrunedModel], data: Dataset, tmp_path: Path
) -> None:
    def stop(_fraction: float, note: str) -> None:
        if note == "evaluating epoch 2 of 3":
            raise Interrupted(Stop())

    first = Run(fresh(), data, tmp_path)
    with pytest.raises(Interrupted):
        first.to_the_end(stop)
    second = Run(fresh(), data, tmp_path)
    second.to_the_end()
    assert [epoch.number for epoch in first.epochs + second.epochs] == [1, 2, 3]


def test_a_finished_run_is_not_trained_again(fresh: Callable[[], PrunedModel], data: Dataset, tmp_path: Path) -> None:
    first, again = fresh(), fresh()
    position = Run(first, data, tmp_path).to_the_end()
    run = Run(again, data, tmp_path)
    assert run.to_the_end(stop_at(0)).step == position.step == STEPS
    assert run.epochs == []
    assert same(weights(again), weights(first))
    assert not again.module.training


def test_the_seed_decides_the_result(fresh: Callable[[], PrunedModel], data: Dataset, tmp_path: Path) -> None:
    results = []
    for index, seed in enumerate((1, 1, 2)):
        torch.manual_seed(index)  # torch's own numbers are of no matter
        model = fresh()
        folder = tmp_path / str(index)
        folder.mkdir()
        Run(model, data, folder, with_options(seed=seed)).to_the_end()
        results.append(weights(model))
    assert same(results[0], results[1])
    assert not same(results[0], results[2])


def test_the_checkpoint_of_another_run_is_not_gone_on_with(
    fresh: Callable[[], PrunedModel], data: Dataset, tmp_path: Path
) -> None:
    Run(fresh(), data, tmp_path).to_the_end()
    other = Run(fresh(), data, tmp_path, name="e" * 64)
    other.to_the_end()
    assert len(other.epochs) == OPTIONS.epochs


# --- which epoch is kept -----------------------------------------------------------------------------------------------------


def judged(run: Run, accuracies: list[float]) -> list[dict[str, Tensor]]:
    """Let a run's epochs be judged like this; the list returned fills with the models that were judged."""
    seen: list[dict[str, Tensor]] = []

    def accuracy(*_: object) -> float:
        seen.append({name: tensor.clone() for name, tensor in run.learner.model.state_dict().items()})
        return accuracies[len(seen) - 1]

    run.learner.accuracy = accuracy  # type: ignore[method-assign]
    return seen


@pytest.mark.parametrize(
    ("accuracies", "best"), [([0.1, 0.9, 0.5], 2), ([0.9, 0.5, 0.1], 1), ([0.2, 0.2, 0.1], 2), ([0.0, 0.0, 0.0], 3)]
)
def test_the_best_epoch_is_what_comes_of_a_run_and_among_equals_the_last(
    accuracies: list[float], best: int, net: PrunedModel, data: Dataset, tmp_path: Path
) -> None:
    run = Run(net, data, tmp_path)
    seen = judged(run, accuracies)
    position = run.to_the_end()
    assert (position.best_epoch, position.best_accuracy) == (best, accuracies[best - 1])
    assert same(weights(net), seen[best - 1])
    assert [epoch.number for epoch in run.epochs if epoch.best][-1] == best


@pytest.mark.parametrize(
    ("patience", "accuracies", "epochs"),
    [(2, [0.5, 0.6, 0.4, 0.6, 0.5, 0.4, 0.9], 6), (1, [0.5, 0.4, 0.9], 2), (0, [0.5, 0.4, 0.3, 0.2, 0.1, 0.0, 0.0], 7)],
)
def test_a_run_that_gets_no_better_is_ended_when_patience_is_over(
    patience: int, accuracies: list[float], epochs: int, net: PrunedModel, data: Dataset, tmp_path: Path
) -> None:
    run = Run(net, data, tmp_path, with_options(epochs=7, patience=patience))
    judged(run, accuracies)
    assert run.to_the_end().epochs == len(run.epochs) == epochs


def test_patience_is_not_forgotten_over_a_restart(fresh: Callable[[], PrunedModel], data: Dataset, tmp_path: Path) -> None:
    options = with_options(epochs=7, patience=3)
    first = Run(fresh(), data, tmp_path, options)
    judged(first, [0.9, 0.1])
    with pytest.raises(Interrupted):
        first.to_the_end(stop_at(2 * 5 * 2 + 1))
    second = Run(fresh(), data, tmp_path, options)
    judged(second, [0.1, 0.1, 0.1, 0.1, 0.1])
    position = second.to_the_end()
    assert (position.epochs, position.best_epoch) == (4, 1)


def few(data: Dataset, count: int) -> Dataset:
    return Dataset(Part(data.train.inputs[:count], data.train.classes[:count]), data.validation, (), Skipped())


@pytest.mark.parametrize(
    ("count", "batch", "effective", "per_epoch", "steps"),
    [
        (33, 32, 32, 32, 1),  # one image is left over, and has no variance to normalise by
        (34, 32, 32, 34, 2),
        (32, 32, 32, 32, 1),
        (2, 64, 2, 2, 1),  # the batch is larger than the data
        (3, 2, 2, 2, 1),
        (150, 4096, 150, 150, 1),
    ],
)
def test_every_size_of_data_and_batch_trains(
    count: int, batch: int, effective: int, per_epoch: int, steps: int, net: PrunedModel, data: Dataset, tmp_path: Path
) -> None:
    run = Run(net, few(data, count), tmp_path, with_options(batch=batch, epochs=2))
    position = run.to_the_end()
    assert (run.trainer.batch, run.trainer.inputs(position), position.step) == (effective, 2 * per_epoch, 2 * steps)
    assert all(torch.isfinite(tensor).all() for tensor in net.module.state_dict().values())


# --- divergence --------------------------------------------------------------------------------------------------------------


def test_a_rate_that_is_far_too_high_is_tried_once_more_lower_and_then_told_as_divergence(
    fresh: Callable[[], PrunedModel], data: Dataset, tmp_path: Path
) -> None:
    run = Run(fresh(), data, tmp_path, with_options(learning_rate=1e12, epochs=20), initial=fresh)
    with pytest.raises(AgentError, match=r"diverged: .* lower rate too; lower learning_rate") as caught:
        run.to_the_end()
    assert caught.value.code is ErrorCode.DIVERGED
    (warning,) = run.warnings
    assert "begins anew at 0.2 times the learning rate" in warning


def broken_once(run: Run, step: int, loss: float = float("nan")) -> None:
    """Let the loss of a step be this, the first time that it is done."""
    real, broken = run.learner.step, []

    def stepped(number: int, *rest: Any) -> float:
        found = real(number, *rest)
        if number == step and not broken:
            broken.append(number)
            return loss
        return found

    run.learner.step = stepped  # type: ignore[method-assign]


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), 1e6], ids=["no number", "infinite", "far beyond guessing"])
def test_after_divergence_training_begins_anew_at_a_lower_rate_as_if_that_had_been_asked_for(
    fresh: Callable[[], PrunedModel], data: Dataset, tmp_path: Path, loss: float
) -> None:
    diverged, low = fresh(), fresh()
    run = Run(diverged, data, tmp_path, initial=fresh)
    broken_once(run, 7, loss)
    position = run.to_the_end()
    assert (position.restarts, position.step, len(run.warnings)) == (1, STEPS, 1)
    (tmp_path / "low").mkdir()
    Run(low, data, tmp_path / "low", with_options(learning_rate=loop.LOWER_RATE * OPTIONS.learning_rate)).to_the_end()
    assert same(weights(diverged), weights(low))


def test_a_lower_rate_is_not_forgotten_over_a_restart(fresh: Callable[[], PrunedModel], data: Dataset, tmp_path: Path) -> None:
    first = Run(fresh(), data, tmp_path, initial=fresh)
    broken_once(first, 7)
    with pytest.raises(Interrupted):
        first.to_the_end(stop_at(2 * 8 + 2 * 4))
    assert first.warnings
    parts = fresh()
    assert Run(parts, data, tmp_path, initial=fresh).to_the_end().restarts == 1
    low = fresh()
    (tmp_path / "low").mkdir()
    Run(low, data, tmp_path / "low", with_options(learning_rate=loop.LOWER_RATE * OPTIONS.learning_rate)).to_the_end()
    assert same(weights(parts), weights(low))


def test_a_full_disk_ends_the_run_as_such_and_keeps_the_checkpoint_before(
    fresh: Callable[[], PrunedModel], data: Dataset, tmp_path: Path
) -> None:
    with tiny_disk(tmp_path / "disk", "256k") as disk:
        first = Run(fresh(), data, disk)
        with pytest.raises(AgentError) as caught:
            first.trainer.run(quiet, lambda epoch: fill(disk) if epoch.number == 1 else None, first.warnings.append)
        assert caught.value.code is ErrorCode.NO_DISK
        (disk / "ballast").unlink()
        parts, whole = fresh(), fresh()
        Run(parts, data, disk).to_the_end()
    Run(whole, data, tmp_path).to_the_end()
    assert same(weights(parts), weights(whole))


def test_progress_grows_from_0_and_is_also_told_while_evaluating(net: PrunedModel, data: Dataset, tmp_path: Path) -> None:
    heard: list[tuple[float, str]] = []
    Run(net, data, tmp_path).to_the_end(lambda fraction, note: heard.append((fraction, note)))
    fractions = [fraction for fraction, _ in heard]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)
    evaluating = dict.fromkeys(note for _, note in heard if note.startswith("evaluating"))
    assert list(evaluating) == [f"evaluating epoch {number} of 3" for number in (1, 2, 3)]


def test_an_epochs_document_is_what_is_told_of_it() -> None:
    assert Epoch(3, 0.123456789, 0.98765432, 0.012345678901, False).document() == {
        "epoch": 3,
        "loss": 0.12346,
        "accuracy": 0.98765,
        "learning_rate": 0.0123457,
        "best": False,
    }
