"""The table of built-in models: a builder for each name in ``core.architectures``."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.core.errors import BundleError
from reconvene_agent.worker.models import resnet, vgg

BUILDERS: dict[str, Callable[[ModelSpec], nn.Module]] = {
    "vgg11": vgg.vgg11,
    "vgg16": vgg.vgg16,
    "vgg19": vgg.vgg19,
    "resnet20": resnet.resnet20,
    "resnet56": resnet.resnet56,
}


def build(spec: ModelSpec) -> nn.Module:
    """Return the dense model on the meta device, in evaluation mode: shapes only, no memory.

    Raises:
        BundleError: the architecture is unknown.
    """
    builder = BUILDERS.get(spec.architecture)
    if builder is None:
        raise BundleError(f"architecture {spec.architecture!r} is not known here; there are: {', '.join(BUILDERS)}")
    with torch.device("meta"):
        return builder(spec).eval()
