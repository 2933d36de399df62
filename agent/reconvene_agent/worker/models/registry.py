"""What builds a model: a table of the built-in ones, and the entry points of installed packages.

A bundle's architecture only selects among what is installed here; nothing is ever imported because a message names it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.metadata import EntryPoint
from typing import Any

import torch
from torch import nn

from reconvene_agent.core import architectures
from reconvene_agent.core.bundle import ModelSpec, check_input
from reconvene_agent.core.errors import BundleError
from reconvene_agent.worker.models import convnet1d, initial, mlp, mobilenet, resnet, vgg, vit

BUILDERS: dict[str, Callable[[ModelSpec], nn.Module]] = {
    "vgg11": vgg.vgg11,
    "vgg16": vgg.vgg16,
    "vgg19": vgg.vgg19,
    "resnet20": resnet.resnet20,
    "resnet56": resnet.resnet56,
    "resnet18": resnet.resnet18,
    "resnet50": resnet.resnet50,
    "mobilenet_v2": mobilenet.mobilenet_v2,
    "vit_tiny": vit.vit_tiny,
    "convnet1d": convnet1d.convnet1d,
    "mlp": mlp.mlp,
}


def build(spec: ModelSpec) -> nn.Module:
    """Return the dense model on the meta device, in evaluation mode: shapes only, no memory.

    Raises:
        BundleError: the architecture is unknown, does not take such an input, or its package is at fault.
    """
    check_input(spec)
    builder = BUILDERS.get(spec.architecture)
    if builder is None:
        return _build_installed(spec)
    with torch.device("meta"):
        return builder(spec).eval()


def _build_installed(spec: ModelSpec) -> nn.Module:
    entry, builder = _installed(spec.architecture)
    try:
        with torch.device("meta"):
            model = builder(spec)
    except BundleError:
        raise
    except Exception as error:  # somebody else's code may raise anything
        raise BundleError(f"{_described(entry)} cannot be built: {_reason(error)}") from error
    if not isinstance(model, nn.Module):
        raise BundleError(f"{_described(entry)} is no model: it returns a {type(model).__name__}, not a torch.nn.Module")
    try:
        _check(model)
    except BundleError as error:
        raise BundleError(f"{_described(entry)} cannot be used: {error.message}") from error
    return model.eval()


@cache
def _installed(name: str) -> tuple[EntryPoint, Callable[[ModelSpec], Any]]:
    """Return what an installed package registers under ``name``, imported.

    Raises:
        BundleError: there is none, or it cannot be imported.
    """
    entry = architectures.installed().get(name)
    if entry is None:
        raise BundleError(f"architecture {name!r} is not known here; there are: {', '.join(architectures.names())}")
    try:
        builder = entry.load()
    except Exception as error:  # somebody else's code may raise anything
        raise BundleError(f"{_described(entry)} cannot be imported: {_reason(error)}") from error
    if not callable(builder):
        raise BundleError(f"{_described(entry)} is no function that builds a model")
    return entry, builder


def _check(model: nn.Module) -> None:
    """Refuse a model that could be built but not be given its weights."""
    seen: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if not parameter.is_meta:
            raise BundleError(f"{name} was given memory: name no device in it")
        if seen.setdefault(id(parameter), name) != name:
            raise BundleError(f"{seen[id(parameter)]} and {name} are one parameter, and layers must not share any")
    initial.check(model)


def _described(entry: EntryPoint) -> str:
    package = f" of {entry.dist.name} {entry.dist.version}" if entry.dist is not None else ""
    return f"the installed model {entry.name!r} ({entry.value}{package})"


def _reason(error: Exception) -> str:
    """Return an exception in a line."""
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
