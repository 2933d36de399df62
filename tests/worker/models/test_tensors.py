from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError, safe_open

from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.worker.models import tensors
from support.disks import fill, tiny_disk

LARGE = {"a": torch.zeros(64 * 1024)}


def read(path: Path) -> dict[str, torch.Tensor]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping


def test_what_is_written_is_read_also_where_it_was_a_view(tmp_path: Path) -> None:
    whole = torch.arange(6.0).reshape(2, 3)
    tensors.write(tmp_path / "t", {"turned": whole.T, "number": torch.tensor(7)}, {"key": "value"})
    found = read(tmp_path / "t")
    assert torch.equal(found["turned"], whole.T)
    assert found["number"] == 7
    with safe_open(tmp_path / "t", framework="pt") as file:
        assert file.metadata() == {"key": "value"}


@pytest.mark.parametrize(
    "text", ["I/O error: No space left on device (os error 28)", "IoError(Os { code: 28, kind: StorageFull })"]
)
def test_a_full_disk_is_known_by_what_either_generation_of_safetensors_says(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise SafetensorError(f"Error while serializing: {text}")

    tensors.write(tmp_path / "t", {"a": torch.ones(2)})
    monkeypatch.setattr(tensors, "save_file", refuse)
    with pytest.raises(AgentError, match="no space left on the disk") as caught:
        tensors.write(tmp_path / "t", LARGE)
    assert caught.value.code is ErrorCode.NO_DISK
    assert torch.equal(read(tmp_path / "t")["a"], torch.ones(2))


def test_a_disk_that_is_really_full_keeps_the_old_file_and_nothing_half_written(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", "128k") as disk:
        path = disk / "t"
        tensors.write(path, {"a": torch.ones(2)})
        fill(disk, leave=8192)
        with pytest.raises(AgentError) as caught:
            tensors.write(path, LARGE)
        assert caught.value.code is ErrorCode.NO_DISK
        assert sorted(path.name for path in disk.iterdir()) == ["ballast", "t"]
        assert torch.equal(read(path)["a"], torch.ones(2))


def test_another_failure_of_the_system_passes_as_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        tensors.write(tmp_path / "nowhere" / "t", {"a": torch.ones(2)})
