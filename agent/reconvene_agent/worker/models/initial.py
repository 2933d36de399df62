"""Initial weights: Kaiming-normal, each tensor drawn by itself from the seed and its own name.

So any layer can be drawn without the others, and a layer of unchanged shape is the same in the dense and the pruned model.
He et al. 2015 (arXiv 1502.01852), equation 10: standard deviation √(2 / fan-in). Parameters that no layer of PyTorch's owns,
such as a position embedding, are normal with standard deviation 0.02, as is usual in transformers (arXiv 2010.11929).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from reconvene_agent.core.errors import BundleError
from reconvene_agent.worker.models.layers import BATCH_NORMS, NORMS, WEIGHTED

# PyTorch's layers that only hold what somebody else computes with.
HOLDERS = (nn.ParameterList, nn.ParameterDict)
EMBEDDING_DEVIATION = 0.02


def generator(seed: int, name: str) -> torch.Generator:
    """Return a random generator that depends on nothing but ``seed`` and ``name``."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def kaiming_normal(name: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """Draw the weight called ``name``, of shape (out, in, ...)."""
    return _drawn(name, shape, seed, math.sqrt(2.0 / math.prod(shape[1:])))


def embedding(name: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """Draw the parameter called ``name`` that no layer of PyTorch's owns."""
    return _drawn(name, shape, seed, EMBEDDING_DEVIATION)


def check(model: nn.Module) -> None:
    """Refuse a model of which a tensor's initial values are not known; it may lie on the meta device.

    Raises:
        BundleError: a layer of another kind has parameters, or one that is no batch-norm has a buffer without values.
    """
    for name, module in model.named_modules():
        layer = f"{name or 'the model'}: no initial"
        ours = isinstance(module, (*WEIGHTED, *NORMS, *HOLDERS)) or not type(module).__module__.startswith("torch.")
        if not ours and any(True for _ in module.parameters(recurse=False)):
            raise BundleError(f"{layer} weights are known for a {type(module).__name__}")
        if isinstance(module, BATCH_NORMS):
            continue
        for buffer, tensor in module.named_buffers(recurse=False):
            if tensor.is_meta:
                raise BundleError(
                    f"{layer} values are known for the buffer {buffer}: make it a parameter or compute it in forward"
                )


Given = Callable[[str, tuple[int, ...]], Tensor | None]
"""Returns the values of a tensor by its name and shape, or None where they are to be drawn."""


def materialize(model: nn.Module, seed: int, given: Given = lambda *_: None) -> nn.Module:
    """Give a model on the meta device memory and its initial weights; biases are 0, norms the identity.

    What is ``given`` is copied, all else is drawn where it stays, so there is never a second copy of the model.

    Raises:
        BundleError: as ``check`` does.
    """
    check(model)
    with torch.no_grad():
        for layer, module in model.named_modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                full = f"{layer}.{name}" if layer else name
                found = given(full, tuple(parameter.shape))
                values = _initial(module, name, full, tuple(parameter.shape), seed) if found is None else found.clone()
                setattr(module, name, nn.Parameter(values))
            if isinstance(module, BATCH_NORMS):
                _reset(module)
    return model


def _initial(module: nn.Module, name: str, full: str, shape: tuple[int, ...], seed: int) -> Tensor:
    if isinstance(module, WEIGHTED):
        return kaiming_normal(full, shape, seed) if name == "weight" else torch.zeros(shape)
    if isinstance(module, NORMS):
        return torch.ones(shape) if name == "weight" else torch.zeros(shape)
    return embedding(full, shape, seed)


def _drawn(name: str, shape: tuple[int, ...], seed: int, deviation: float) -> Tensor:
    return torch.empty(shape).normal_(0.0, deviation, generator=generator(seed, name))


def _reset(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
    """Give a batch-norm's statistics memory (Module.to_empty would import PyTorch's meta kernels)."""
    for name, buffer in list(norm.named_buffers(recurse=False)):
        setattr(norm, name, torch.zeros(buffer.shape, dtype=buffer.dtype))
    norm.reset_running_stats()
