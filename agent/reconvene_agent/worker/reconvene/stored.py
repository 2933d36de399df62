"""A pruned model on disk: its design as JSON, its weights and masks as safetensors."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
import torch
from msgspec import Struct
from safetensors import SafetensorError
from safetensors.torch import load_file

from reconvene_agent.core import atomic
from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.core.decoding import from_json
from reconvene_agent.core.errors import UsageError
from reconvene_agent.worker.models import initial
from reconvene_agent.worker.models import tensors as tensor_files
from reconvene_agent.worker.reconvene.method import PrunedModel, narrow

DESIGN = "pruned.json"
WEIGHTS = "pruned.safetensors"
_MASK = "mask."


class StoredDesign(Struct, frozen=True):
    """What ``pruned.json`` says: enough to build the model again, and the report of its layers."""

    format: int
    bundle: str
    model: ModelSpec
    sparsity: float
    widths: dict[str, int]
    mask_sizes: dict[str, int]
    layers: list[dict[str, Any]]


_design = msgspec.json.Decoder(StoredDesign)


def write(folder: Path, pruned: PrunedModel, bundle_digest: str) -> None:
    """Store a pruned model in ``folder``, which is made if need be.

    Raises:
        AgentError: NO_DISK when the disk is full.
    """
    design = pruned.design
    tensors = dict(pruned.module.state_dict())
    tensors.update({_MASK + name: mask.to(torch.uint8) for name, mask in pruned.masks.items()})
    layers = [asdict(layer) for layer in design.layers]
    stored = StoredDesign(1, bundle_digest, design.spec, design.sparsity, design.widths, design.mask_sizes, layers)
    with atomic.full_disk_is_no_disk(f"writing {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
    tensor_files.write(folder / WEIGHTS, tensors)
    atomic.write_bytes(folder / DESIGN, msgspec.json.format(msgspec.json.encode(stored), indent=1))


def read(folder: Path) -> tuple[StoredDesign, torch.nn.Module]:
    """Load a pruned model.

    Raises:
        UsageError: the files are missing, damaged or do not match.
    """
    try:
        stored = from_json((folder / DESIGN).read_bytes(), _design.decode)
        tensors = load_file(folder / WEIGHTS)
        module = initial.materialize(narrow(stored.model, stored.widths), seed=0)
    except (OSError, msgspec.DecodeError, SafetensorError) as error:
        raise UsageError(f"{folder} holds no pruned model that can be read: {error}") from error
    state = {name: tensor for name, tensor in tensors.items() if not name.startswith(_MASK)}
    if tensor_files.shapes(state) != tensor_files.shapes(module.state_dict()):
        raise UsageError(f"{folder / WEIGHTS} does not hold the weights of the model in {DESIGN}: prune again")
    module.load_state_dict(state)
    return stored, module
