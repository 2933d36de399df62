"""A traced model run once, for its answer and the shapes on the way to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Run:
    """``inputs`` (N, …), the ``logits`` (N, classes) they lead to, and the shape of every node's tensor."""

    inputs: Tensor
    logits: Tensor
    shapes: dict[fx.Node, Shape]


class _Noting(fx.Interpreter):
    def __init__(self, model: fx.GraphModule) -> None:
        super().__init__(model)
        self.shapes: dict[fx.Node, Shape] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.shapes[n] = tuple(result.shape)
        return result


def run(model: fx.GraphModule, inputs: Tensor) -> Run:
    """Run the model, which is in evaluation mode, on normalised inputs."""
    interpreter = _Noting(model)
    with torch.no_grad():
        logits = interpreter.run(inputs)
    return Run(inputs, logits, interpreter.shapes)
