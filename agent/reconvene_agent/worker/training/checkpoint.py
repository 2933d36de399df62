"""Checkpoints: all that a run needs to go on, in one safetensors file, replaced atomically, bound to the run it belongs to."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path

import msgspec
import torch
from msgspec import Struct
from safetensors import SafetensorError, safe_open
from torch import Tensor

from reconvene_agent.worker.models import tensors as tensor_files
from reconvene_agent.worker.training.learner import Learner


class Position(Struct, frozen=True):
    """How far training has come.

    Attributes:
        step: steps done.
        loss: sum over the steps of the epoch that is not finished yet.
        epochs: epochs done and judged.
        best_epoch: the number of the best of them, from 1; 0 when there is none.
        best_accuracy: what it reached on the held-out inputs.
        restarts: how often training began anew because it diverged.
        seconds: spent on all steps, those before a restart included.
    """

    step: int = 0
    loss: float = 0.0
    epochs: int = 0
    best_epoch: int = 0
    best_accuracy: float = 0.0
    restarts: int = 0
    seconds: float = 0.0


class Checkpoint:
    """The checkpoint file of one run. ``fingerprint`` names everything the run depends on; another run's file is ignored."""

    def __init__(self, path: Path, fingerprint: str) -> None:
        self._path = path
        self._fingerprint = fingerprint

    def save(self, learner: Learner, position: Position) -> None:
        """Replace the checkpoint.

        Raises:
            AgentError: NO_DISK when the disk is full; the previous checkpoint stays.
        """
        tensors = learner.state()
        metadata = {
            "fingerprint": self._fingerprint,
            "position": msgspec.json.encode(position).decode(),
            "checksum": _checksum(tensors),
        }
        tensor_files.write(self._path, tensors, metadata)

    def restore(self, learner: Learner) -> Position:
        """Let ``learner`` go on from the checkpoint and return its position; the start when there is none that can be used."""
        try:
            with safe_open(self._path, framework="pt", device="cpu") as file:
                metadata = file.metadata() or {}
                if metadata.get("fingerprint") != self._fingerprint:
                    return Position()
                tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            position = msgspec.json.decode(metadata["position"], type=Position)
        except (OSError, SafetensorError, KeyError, msgspec.DecodeError):
            return Position()
        if metadata.get("checksum") != _checksum(tensors) or not learner.load(tensors):
            return Position()
        return position


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    """Return a CRC-32 of all tensors: safetensors has none, and memory cards do forget."""
    total = 0
    for name in sorted(tensors):
        total = zlib.crc32(tensors[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data, total)
    return f"{total:08x}"
