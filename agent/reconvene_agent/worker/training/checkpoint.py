"""Checkpoints: model, momentum and step in one safetensors file, replaced atomically, bound to the run they belong to."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from reconvene_agent.worker.models import tensors as tensor_files

_MODEL, _MOMENTUM = "model.", "momentum."


@dataclass(frozen=True)
class Position:
    """How far training has come: steps done, and seconds spent on them."""

    step: int = 0
    seconds: float = 0.0


class Checkpoint:
    """The checkpoint file of one run. ``fingerprint`` names everything the run depends on; another run's file is ignored."""

    def __init__(self, path: Path, fingerprint: str) -> None:
        self._path = path
        self._fingerprint = fingerprint

    def save(self, model: nn.Module, optimizer: torch.optim.SGD, position: Position) -> None:
        """Replace the checkpoint.

        Raises:
            AgentError: NO_DISK when the disk is full; the previous checkpoint stays.
        """
        tensors = {_MODEL + name: tensor for name, tensor in model.state_dict().items()}
        for name, parameter in model.named_parameters():
            momentum = optimizer.state[parameter].get("momentum_buffer")
            if momentum is not None:
                tensors[_MOMENTUM + name] = momentum
        metadata = {
            "fingerprint": self._fingerprint,
            "position": json.dumps([position.step, position.seconds]),
            "checksum": _checksum(tensors),
        }
        tensor_files.write(self._path, tensors, metadata)

    def restore(self, model: nn.Module, optimizer: torch.optim.SGD) -> Position:
        """Load the checkpoint into ``model`` and ``optimizer`` and return its position; the start when there is none."""
        try:
            with safe_open(self._path, framework="pt", device="cpu") as file:
                metadata = file.metadata() or {}
                if metadata.get("fingerprint") != self._fingerprint:
                    return Position()
                tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        except (OSError, SafetensorError):
            return Position()
        state = {name.removeprefix(_MODEL): tensor for name, tensor in tensors.items() if name.startswith(_MODEL)}
        if metadata.get("checksum") != _checksum(tensors) or tensor_files.shapes(state) != tensor_files.shapes(
            model.state_dict()
        ):
            return Position()
        model.load_state_dict(state)
        for name, parameter in model.named_parameters():
            if _MOMENTUM + name in tensors:
                optimizer.state[parameter]["momentum_buffer"] = tensors[_MOMENTUM + name]
        step, seconds = json.loads(metadata["position"])
        return Position(int(step), float(seconds))


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    """Return a CRC-32 of all tensors: safetensors has none, and memory cards do forget."""
    total = 0
    for name in sorted(tensors):
        total = zlib.crc32(tensors[name].detach().contiguous().reshape(-1).view(torch.uint8).numpy().data, total)
    return f"{total:08x}"
