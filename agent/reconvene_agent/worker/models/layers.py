"""Kinds of layers and operations that several parts of the worker tell apart."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)

WEIGHTED = (*CONVOLUTIONS, nn.Linear)
"""Layers whose weights may be pruned."""

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
"""Normalisations with two numbers for every channel, dimension 1."""

NORMS = (*BATCH_NORMS, nn.LayerNorm, nn.GroupNorm)

PRODUCTS: frozenset[Callable[..., Any] | str] = frozenset({torch.matmul, torch.bmm, operator.matmul, "matmul", "bmm"})
"""Matrix products of two tensors, as functions or by the names of methods."""
