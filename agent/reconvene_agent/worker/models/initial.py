"""Initial weights: Kaiming-normal, each tensor drawn by itself from the seed and its own name.

So any layer can be drawn without the others, and a layer of unchanged shape is the same in the dense and the pruned model.
He et al. 2015 (arXiv 1502.01852), equation 10: standard deviation √(2 / fan-in).
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor, nn

WEIGHTED = (nn.Conv2d, nn.Linear)


def generator(seed: int, name: str) -> torch.Generator:
    """Return a random generator that depends on nothing but ``seed`` and ``name``."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def kaiming_normal(name: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """Draw the weight called ``name``, of shape (out, in, ...)."""
    fan_in = math.prod(shape[1:])
    return torch.empty(shape).normal_(0.0, math.sqrt(2.0 / fan_in), generator=generator(seed, name))


def materialize(model: nn.Module, seed: int) -> nn.Module:
    """Give a model on the meta device memory and its initial weights; biases are 0, batch-norm is the identity."""
    with torch.no_grad():
        for name, module in model.named_modules():
            _allocate(module)
            if isinstance(module, WEIGHTED):
                module.weight.copy_(kaiming_normal(f"{name}.weight", tuple(module.weight.shape), seed))
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
            elif any(True for _ in module.parameters(recurse=False)):
                raise TypeError(f"{name}: no initial weights are known for a {type(module).__name__}")
    return model


def _allocate(module: nn.Module) -> None:
    """Replace a module's own meta tensors by tensors in memory (Module.to_empty would import PyTorch's meta kernels)."""
    for name, parameter in module.named_parameters(recurse=False):
        setattr(module, name, nn.Parameter(torch.empty(parameter.shape)))
    for name, buffer in module.named_buffers(recurse=False):
        setattr(module, name, torch.zeros(buffer.shape, dtype=buffer.dtype))
