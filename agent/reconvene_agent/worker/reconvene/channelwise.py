"""What operations do to channels, as tables: those that leave them where they are, that join them, that flatten them."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

ADDITIONS: frozenset[Callable[..., Any] | str] = frozenset(
    {
        operator.add,
        operator.iadd,
        operator.sub,
        operator.mul,
        operator.imul,
        torch.add,
        torch.sub,
        torch.mul,
        "add",
        "add_",
        "sub",
        "mul",
    }
)
"""Element-wise functions of two tensors: both must have the same channels."""

FLATTENINGS: frozenset[Callable[..., Any] | str] = frozenset({torch.flatten, "flatten"})

MEANS: frozenset[Callable[..., Any] | str] = frozenset({torch.mean, "mean"})

CHANNELWISE_MODULES = (
    nn.ReLU,
    nn.ReLU6,
    nn.SiLU,
    nn.GELU,
    nn.Hardswish,
    nn.LeakyReLU,
    nn.Sigmoid,
    nn.Tanh,
    nn.Dropout,
    nn.Dropout2d,
    nn.Identity,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
)
"""Modules that leave every channel where it is."""

CHANNELWISE_FUNCTIONS: frozenset[Callable[..., Any] | str] = frozenset(
    {
        functional.relu,
        functional.relu6,
        functional.silu,
        functional.gelu,
        functional.hardswish,
        functional.leaky_relu,
        functional.dropout,
        functional.max_pool2d,
        functional.avg_pool2d,
        functional.adaptive_avg_pool2d,
        torch.relu,
        torch.sigmoid,
        torch.tanh,
        "relu",
        "relu_",
        "sigmoid",
        "tanh",
        "contiguous",
    }
)
"""Functions and methods that leave every channel where it is."""
