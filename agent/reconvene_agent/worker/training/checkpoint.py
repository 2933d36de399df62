"""Checkpoints: model, momentum and step in one safetensors file, replaced atomically, bound to the run they belong to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from reconvene_agent.core import atomic

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
        metadata = {"fingerprint": self._fingerprint, "position": json.dumps([position.step, position.seconds])}
        contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
        atomic.write_with(self._path, lambda aside: save_file(contiguous, aside, metadata))

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
        model.load_state_dict({k[len(_MODEL) :]: v for k, v in tensors.items() if k.startswith(_MODEL)})
        for name, parameter in model.named_parameters():
            if _MOMENTUM + name in tensors:
                optimizer.state[parameter]["momentum_buffer"] = tensors[_MOMENTUM + name]
        step, seconds = json.loads(metadata["position"])
        return Position(int(step), float(seconds))
