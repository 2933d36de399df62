from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.core.options import TrainingOptions
from reconvene_agent.worker.data.dataset import Dataset, Part, Skipped
from reconvene_agent.worker.data.load import load
from reconvene_agent.worker.reconvene.method import PrunedModel
from reconvene_agent.worker.training.checkpoint import Checkpoint
from reconvene_agent.worker.training.loop import Epoch, Interrupted, Trainer, accuracy
from support.disks import fill, tiny_disk
from support.models import TINY_VGG, pruned
from support.pictures import DIGITS

OPTIONS = TrainingOptions(epochs=3, batch=32, learning_rate=0.05, augment="shift")


Build = Callable[[], nn.Module]
Turn = Callable[[NDArray[np.float32]], NDArray[np.float32]]


class Stop(Exception):  # noqa: N818 - a reason, not an error
    pass


def quiet(_fraction: float, _note: str) -> None: ...


def stop_at(step: int) -> Callable[[float, str], None]:
    """Return a report that interrupts the run before its step number ``step``."""
    heard = 0

    def report(_fraction: float, note: str) -> None:
        nonlocal heard
        if not note.startswith("evaluating"):
            heard += 1
            if heard == step + 1:
                raise Interrupted(Stop())

    return report


def trainer(model: PrunedModel, data: Dataset, folder: Path, options: TrainingOptions = OPTIONS) -> Trainer:
    return Trainer(model, data, options, options.batch, Checkpoint(folder / "checkpoint", "f" * 64))


def weights(model: PrunedModel) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.module.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_a_pruned_network_learns_the_digits(tmp_path: Path) -> None:
    data = load(DIGITS, TINY_VGG, (), 0.2, quiet)
    model = pruned(TINY_VGG, 0.9)
    options = TrainingOptions(epochs=4, batch=64, learning_rate=0.05, augment="none")
    epochs: list[Epoch] = []
    trainer(model, data, tmp_path, options).run(quiet, epochs.append)
    assert [epoch.number for epoch in epochs] == [1, 2, 3, 4]
    assert epochs[-1].loss < epochs[0].loss / 3
    assert epochs[-1].accuracy > 0.9
    assert accuracy(model.module, data, data.validation, lambda _: None) == epochs[-1].accuracy


def test_masks_hold_through_training_with_momentum_and_decay(net: PrunedModel, data: Dataset, tmp_path: Path) -> None:
    assert net.masks
    before = {name: int(torch.count_nonzero(net.module.get_parameter(f"{name}.weight"))) for name in net.masks}
    assert before == net.design.mask_sizes
    trainer(net, data, tmp_path, with_options(weight_decay=0.1, epochs=6)).run(quiet, lambda _: None)
    for name, mask in net.masks.items():
        weight = net.module.get_parameter(f"{name}.weight")
        assert torch.count_nonzero(weight[~mask]) == 0
        assert int(torch.count_nonzero(weight)) == before[name]


def with_options(**changes: object) -> TrainingOptions:
    return msgspec.structs.replace(OPTIONS, **changes)


STEPS = 3 * 5  # three epochs of 150 images, 32 at a time


@settings(max_examples=10)
@given(stops=st.lists(st.integers(0, STEPS - 1), min_size=1, max_size=3))
def test_a_run_stopped_anywhere_and_resumed_ends_with_the_same_bits(
    stops: list[int], fresh: Callable[[], PrunedModel], data: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole, parts = fresh(), fresh()
    trainer(whole, data, tmp_path_factory.mktemp("whole")).run(quiet, lambda _: None)
    folder = tmp_path_factory.mktemp("parts")
    for stop in stops:
        with suppress(Interrupted):  # the last of them may lie behind the end
            trainer(parts, data, folder).run(stop_at(stop), lambda _: None)
        parts = fresh()
    position = trainer(parts, data, folder).run(quiet, lambda _: None)
    assert position.step == STEPS
    assert same(weights(parts), weights(whole))


def test_stopping_keeps_every_step_that_was_done(net: PrunedModel, data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(Interrupted) as caught:
        trainer(net, data, tmp_path).run(stop_at(7), lambda _: None)
    assert isinstance(caught.value.reason, Stop)
    optimizer = torch.optim.SGD(net.module.parameters(), lr=0.1, momentum=0.9)
    position = Checkpoint(tmp_path / "checkpoint", "f" * 64).restore(net.module, optimizer)
    assert position.step == 7
    assert position.seconds > 0


def test_a_finished_run_is_not_trained_again(net: PrunedModel, data: Dataset, tmp_path: Path) -> None:
    first = trainer(net, data, tmp_path).run(quiet, lambda _: None)
    before = weights(net)
    epochs: list[Epoch] = []
    assert trainer(net, data, tmp_path).run(stop_at(0), epochs.append).step == first.step == STEPS
    assert epochs == []
    assert same(weights(net), before)
    assert not net.module.training


def test_the_seed_decides_the_result(fresh: Callable[[], PrunedModel], data: Dataset, tmp_path: Path) -> None:
    results = []
    for index, seed in enumerate((1, 1, 2)):
        torch.manual_seed(index)  # torch's own numbers are of no matter
        model = fresh()
        folder = tmp_path / str(index)
        folder.mkdir()
        trainer(model, data, folder, with_options(seed=seed)).run(quiet, lambda _: None)
        results.append(weights(model))
    assert same(results[0], results[1])
    assert not same(results[0], results[2])


def test_the_checkpoint_of_another_run_is_not_gone_on_with(
    fresh: Callable[[], PrunedModel], data: Dataset, tmp_path: Path
) -> None:
    trainer(fresh(), data, tmp_path).run(quiet, lambda _: None)
    epochs: list[Epoch] = []
    other = Trainer(fresh(), data, OPTIONS, OPTIONS.batch, Checkpoint(tmp_path / "checkpoint", "e" * 64))
    other.run(quiet, epochs.append)
    assert len(epochs) == OPTIONS.epochs


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
    run = trainer(net, few(data, count), tmp_path, with_options(batch=batch, epochs=2))
    heard: list[str] = []
    position = run.run(lambda _, note: heard.append(note), lambda _: None)
    assert (run.batch, run.images, position.step) == (effective, 2 * per_epoch, 2 * steps)
    assert sum(not note.startswith("evaluating") for note in heard) == 2 * steps
    assert all(torch.isfinite(tensor).all() for tensor in net.module.state_dict().values())


def test_a_rate_that_is_far_too_high_is_told_as_divergence(net: PrunedModel, data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(AgentError, match=r"diverged at step \d+: .*lower learning_rate") as caught:
        trainer(net, data, tmp_path, with_options(learning_rate=1e12, epochs=20)).run(quiet, lambda _: None)
    assert caught.value.code is ErrorCode.DIVERGED


def test_a_full_disk_ends_the_run_as_such_and_keeps_the_checkpoint_before(
    fresh: Callable[[], PrunedModel], data: Dataset, tmp_path: Path
) -> None:
    with tiny_disk(tmp_path / "disk", "256k") as disk:
        with pytest.raises(AgentError) as caught:
            trainer(fresh(), data, disk).run(quiet, lambda epoch: fill(disk) if epoch.number == 1 else None)
        assert caught.value.code is ErrorCode.NO_DISK
        (disk / "ballast").unlink()
        epochs: list[Epoch] = []
        parts = fresh()
        trainer(parts, data, disk).run(quiet, epochs.append)
    assert [epoch.number for epoch in epochs] == [2, 3]
    whole = fresh()
    trainer(whole, data, tmp_path).run(quiet, lambda _: None)
    assert same(weights(parts), weights(whole))


def test_progress_grows_from_0_and_is_also_told_while_evaluating(net: PrunedModel, data: Dataset, tmp_path: Path) -> None:
    heard: list[tuple[float, str]] = []
    trainer(net, data, tmp_path).run(lambda fraction, note: heard.append((fraction, note)), lambda _: None)
    fractions = [fraction for fraction, _ in heard]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)
    assert [note for _, note in heard if note.startswith("evaluating")] == [f"evaluating epoch {n} of 3" for n in (1, 2, 3)]


def test_accuracy_is_the_share_of_images_classified_rightly(net: PrunedModel, data: Dataset) -> None:
    net.module.train()
    heard: list[float] = []
    images = np.repeat(data.validation.inputs, 12, axis=0)  # more than one batch
    with torch.inference_mode():
        net.module.eval()
        answers = net.module(torch.from_numpy(data.normalized(images))).argmax(1).numpy()
        net.module.train()
    classes = answers.astype(np.int64)
    classes[:90] = (classes[:90] + 1) % 10
    assert accuracy(net.module, data, Part(images, classes), heard.append) == pytest.approx(1 - 90 / 600)
    assert heard == [0.0, 256 / 600, 512 / 600]
    assert not net.module.training


def flat(windows: NDArray[np.float32]) -> NDArray[np.float32]:
    return windows.reshape(len(windows), -1)


class Wave(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 8, 5, padding=2, bias=False)
        self.norm = nn.BatchNorm1d(8)
        self.classifier = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(functional.relu(self.norm(self.conv(x))).mean(2))


def slow_and_fast(count: int, seed: int) -> Part:
    """Return windows of a slow or a fast wave, far from zero and in a unit of its own."""
    random = np.random.default_rng(seed)
    classes = np.arange(count) % 2
    time = np.arange(32) / 32 * 2 * np.pi
    waves = np.sin(time * (1 + 4 * classes[:, np.newaxis]) + random.uniform(0, 6, (count, 1)))
    windows = np.stack([1e4 + 1e3 * waves, 1e-5 * random.standard_normal(waves.shape)], axis=1)
    return Part(windows.astype(np.float32), classes.astype(np.int64))


@dataclass(frozen=True)
class Unpruned:
    module: nn.Module
    masks: dict[str, Tensor]


@pytest.mark.parametrize(
    ("build", "turn"),
    [(Wave, lambda x: x), (lambda: nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 2)), flat)],
    ids=["windows", "features"],
)
def test_signals_are_learnt_in_whatever_unit_they_come(build: Build, turn: Turn, tmp_path: Path) -> None:
    parts = [slow_and_fast(count, seed) for count, seed in ((200, 0), (60, 1))]
    signals = Dataset(*(Part(turn(part.inputs), part.classes) for part in parts), ("slow", "fast"), Skipped())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Unpruned(build(), {})
    epochs: list[Epoch] = []
    trainer(model, signals, tmp_path, with_options(epochs=12, augment="shift-flip")).run(quiet, epochs.append)
    assert epochs[-1].accuracy > 0.9
    assert accuracy(model.module, signals, signals.validation, lambda _: None) == epochs[-1].accuracy


def test_an_epochs_document_is_what_is_told_of_it() -> None:
    assert Epoch(3, 0.123456789, 0.98765432, 0.012345678901).document() == {
        "epoch": 3,
        "loss": 0.12346,
        "accuracy": 0.98765,
        "learning_rate": 0.0123457,
    }
