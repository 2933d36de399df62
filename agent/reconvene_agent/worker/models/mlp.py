"""A multi-layer perceptron for tabular and sensor data: linear layers with batch-norm (arXiv 1502.03167) and ReLU."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from reconvene_agent.core.bundle import ModelSpec

HIDDEN = (512, 256, 128)


class MLP(nn.Module):
    """Maps rows (N, features) to logits (N, classes) through hidden layers of these widths."""

    def __init__(self, spec: ModelSpec, hidden: Sequence[int]) -> None:
        super().__init__()
        (inputs,) = spec.input
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for position, width in enumerate(hidden, start=1):
            layers[f"linear{position}"] = nn.Linear(inputs, width, bias=False)
            layers[f"norm{position}"] = nn.BatchNorm1d(width)
            layers[f"relu{position}"] = nn.ReLU()
            inputs = width
        self.features = nn.Sequential(layers)
        self.classifier = nn.Linear(inputs, spec.classes)

    def forward(self, rows: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(rows))
        return logits


def mlp(spec: ModelSpec) -> nn.Module:
    return MLP(spec, HIDDEN)
