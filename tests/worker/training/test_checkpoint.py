from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.worker.training.checkpoint import Checkpoint, Position
from support.disks import fill, tiny_disk

RUN = "f" * 64


def trained(seed: int = 0, width: int = 4) -> tuple[nn.Module, torch.optim.SGD]:
    """Return a model and its optimizer after one step."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.Flatten(), nn.Linear(width * 36, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.randn(4, 1, 8, 8)).square().mean().backward()
    optimizer.step()
    return model, optimizer


def state(model: nn.Module, optimizer: torch.optim.SGD) -> list[torch.Tensor]:
    momenta = [optimizer.state[parameter].get("momentum_buffer") for parameter in model.parameters()]
    return [*model.state_dict().values(), *(momentum for momentum in momenta if momentum is not None)]


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_what_is_saved_is_restored_bit_for_bit(tmp_path: Path) -> None:
    model, optimizer = trained()
    Checkpoint(tmp_path / "c", RUN).save(model, optimizer, Position(17, 2.5))
    other, fresh = trained(seed=1)
    assert Checkpoint(tmp_path / "c", RUN).restore(other, fresh) == Position(17, 2.5)
    assert same(state(other, fresh), state(model, optimizer))


def test_a_model_that_made_no_step_has_no_momentum_to_restore(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    Checkpoint(tmp_path / "c", RUN).save(model, optimizer, Position())
    assert Checkpoint(tmp_path / "c", RUN).restore(model, optimizer) == Position()
    assert len(state(model, optimizer)) == len(model.state_dict())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()


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
def test_a_checkpoint_that_is_missing_or_damaged_means_the_start(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    Checkpoint(tmp_path / "c", RUN).save(*trained(), Position(17, 2.5))
    damage(tmp_path / "c")
    model, optimizer = trained(seed=1)
    before = [tensor.clone() for tensor in state(model, optimizer)]
    assert Checkpoint(tmp_path / "c", RUN).restore(model, optimizer) == Position()
    assert same(state(model, optimizer), before)


def test_the_checkpoint_of_another_run_is_ignored(tmp_path: Path) -> None:
    Checkpoint(tmp_path / "c", RUN).save(*trained(), Position(17, 2.5))
    model, optimizer = trained(seed=1)
    before = [tensor.clone() for tensor in state(model, optimizer)]
    assert Checkpoint(tmp_path / "c", "e" * 64).restore(model, optimizer) == Position()
    assert same(state(model, optimizer), before)


def test_the_checkpoint_of_a_model_of_another_shape_is_ignored(tmp_path: Path) -> None:
    Checkpoint(tmp_path / "c", RUN).save(*trained(width=5), Position(17, 2.5))
    assert Checkpoint(tmp_path / "c", RUN).restore(*trained()) == Position()


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", "256k") as disk:
        checkpoint = Checkpoint(disk / "c", RUN)
        model, optimizer = trained()
        checkpoint.save(model, optimizer, Position(1, 0.5))
        known = (disk / "c").read_bytes()
        fill(disk)
        with pytest.raises(AgentError) as caught:
            checkpoint.save(model, optimizer, Position(2, 1.0))
        assert caught.value.code is ErrorCode.NO_DISK
        assert (disk / "c").read_bytes() == known
        assert checkpoint.restore(*trained(seed=1)) == Position(1, 0.5)
