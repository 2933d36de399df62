"""What operations do to dimensions, as tables: those that leave all where they are, that pool, that join, that reduce."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

Operations = frozenset[Callable[..., Any] | str]

ELEMENTWISE_MODULES = (
    nn.ReLU,
    nn.ReLU6,
    nn.SiLU,
    nn.GELU,
    nn.ELU,
    nn.Hardswish,
    nn.Hardsigmoid,
    nn.Hardtanh,
    nn.LeakyReLU,
    nn.Mish,
    nn.Sigmoid,
    nn.Softplus,
    nn.Tanh,
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Identity,
)
"""Modules that give each entry its own answer."""

POOLING_MODULES = (
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool1d,
    nn.AdaptiveMaxPool2d,
    nn.Upsample,
)
"""Modules that leave every channel where it is, but not the places."""

ELEMENTWISE: Operations = frozenset(
    {
        functional.relu,
        functional.relu6,
        functional.silu,
        functional.gelu,
        functional.elu,
        functional.hardswish,
        functional.hardsigmoid,
        functional.hardtanh,
        functional.leaky_relu,
        functional.mish,
        functional.softplus,
        functional.dropout,
        functional.dropout2d,
        torch.relu,
        torch.sigmoid,
        torch.tanh,
        torch.abs,
        torch.clamp,
        torch.exp,
        torch.sqrt,
        torch.neg,
        operator.neg,
        "relu",
        "relu_",
        "sigmoid",
        "tanh",
        "abs",
        "clamp",
        "exp",
        "sqrt",
        "contiguous",
        "clone",
        "detach",
        "float",
    }
)
"""Functions and methods that give each entry its own answer."""

POOLING: Operations = frozenset(
    {
        functional.max_pool1d,
        functional.max_pool2d,
        functional.avg_pool1d,
        functional.avg_pool2d,
        functional.adaptive_avg_pool1d,
        functional.adaptive_avg_pool2d,
        functional.adaptive_max_pool2d,
        functional.interpolate,
    }
)
"""Functions that leave every channel where it is, but not the places."""

JOINING: Operations = frozenset(
    {
        operator.add,
        operator.iadd,
        operator.sub,
        operator.isub,
        operator.mul,
        operator.imul,
        operator.truediv,
        operator.pow,
        torch.add,
        torch.sub,
        torch.mul,
        torch.div,
        torch.maximum,
        torch.minimum,
        "add",
        "add_",
        "sub",
        "mul",
        "mul_",
        "div",
    }
)
"""Functions that pair the entries of two tensors: both must have the same ones."""

REDUCING: Operations = frozenset({torch.mean, torch.sum, torch.amax, "mean", "sum", "amax"})
"""Functions that reduce the dimensions they are told to."""

CONCATENATING: Operations = frozenset({torch.cat, torch.concat})
