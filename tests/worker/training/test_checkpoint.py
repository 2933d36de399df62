from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.worker.training.checkpoint import Checkpoint, Position
from reconvene_agent.worker.training.learner import Learner
from support.disks import fill, tiny_disk

RUN = "f" * 64
POSITION = Position(17, 3.25, 2, 1, 0.5, 1, 2.5)
BATCH = torch.arange(32)

Learners = Callable[..., Learner]


def trained(learner: Learners, steps: int = 2, **options: object) -> Learner:
    """Return a learner after some steps, the best of which it has kept."""
    made = learner(**options)
    for number in range(steps):
        made.step(number, BATCH, 0.05, lambda: None)
        made.note_best()
    return made


def state(learner: Learner) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in learner.state().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("options", [{}, {"ema": 0.9}, {"channels_last": True}])
def test_what_is_saved_is_restored_and_gone_on_with_bit_for_bit(
    tmp_path: Path, learner: Learners, options: dict[str, object]
) -> None:
    first = trained(learner, **options)
    Checkpoint(tmp_path / "c", RUN).save(first, POSITION)
    other = learner(**options)
    assert Checkpoint(tmp_path / "c", RUN).restore(other) == POSITION
    assert same(state(other), state(first))
    for each in (first, other):
        each.step(2, BATCH, 0.05, lambda: None)
    assert same(state(other), state(first))


def test_a_model_that_made_no_step_has_no_momentum_to_restore(tmp_path: Path, learner: Learners) -> None:
    first, other = learner(), learner()
    Checkpoint(tmp_path / "c", RUN).save(first, Position())
    assert Checkpoint(tmp_path / "c", RUN).restore(other) == Position()
    assert not any(name.startswith(("momentum.", "best.")) for name in other.state())
    other.step(0, BATCH, 0.05, lambda: None)


def unlink(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


def garble_header(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[12:20] = b"\xff" * 8
    path.write_bytes(content)


def flip_a_bit_of_a_weight(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [unlink, empty, truncate, garble_header, flip_a_bit_of_a_weight])
def test_a_checkpoint_that_is_missing_or_damaged_means_the_start(
    tmp_path: Path, damage: Callable[[Path], None], learner: Learners
) -> None:
    Checkpoint(tmp_path / "c", RUN).save(trained(learner), POSITION)
    damage(tmp_path / "c")
    other = trained(learner, 3)
    before = state(other)
    assert Checkpoint(tmp_path / "c", RUN).restore(other) == Position()
    assert same(state(other), before)


def test_the_checkpoint_of_another_run_is_ignored(tmp_path: Path, learner: Learners) -> None:
    Checkpoint(tmp_path / "c", RUN).save(trained(learner), POSITION)
    other = trained(learner, 3)
    before = state(other)
    assert Checkpoint(tmp_path / "c", "e" * 64).restore(other) == Position()
    assert same(state(other), before)


def test_a_checkpoint_without_the_average_that_is_wanted_is_ignored(tmp_path: Path, learner: Learners) -> None:
    Checkpoint(tmp_path / "c", RUN).save(trained(learner), POSITION)
    other = learner(ema=0.9)
    before = state(other)
    assert Checkpoint(tmp_path / "c", RUN).restore(other) == Position()
    assert same(state(other), before)


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path: Path, learner: Learners) -> None:
    with tiny_disk(tmp_path / "disk", "256k") as disk:
        checkpoint = Checkpoint(disk / "c", RUN)
        first = trained(learner)
        checkpoint.save(first, Position(1, 0.5))
        known = (disk / "c").read_bytes()
        fill(disk)
        with pytest.raises(AgentError) as caught:
            checkpoint.save(first, Position(2, 1.0))
        assert caught.value.code is ErrorCode.NO_DISK
        assert (disk / "c").read_bytes() == known
        assert checkpoint.restore(learner()) == Position(1, 0.5)
