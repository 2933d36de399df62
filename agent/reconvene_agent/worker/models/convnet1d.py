"""Convolutions over time for windows of a signal, such as human activity: batch-norm, ReLU, max-pools, a global average.

After the fully convolutional network of Wang et al. 2017 (arXiv 1611.06455), deeper and with pools.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from reconvene_agent.core.bundle import ModelSpec

KERNEL = 5
STAGES = ((64, 64), (128, 128), (256,))


class ConvNet1d(nn.Module):
    """Maps windows (N, C, L) to logits (N, classes). A pool that would leave nothing of the window is left out."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        channels, length = spec.input
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for stage, widths in enumerate(STAGES, start=1):
            if stage > 1 and length >= 2:
                layers[f"pool{stage - 1}"] = nn.MaxPool1d(2)
                length //= 2
            for position, width in enumerate(widths, start=1):
                name = f"{stage}_{position}"
                layers[f"conv{name}"] = nn.Conv1d(channels, width, KERNEL, padding=KERNEL // 2, bias=False)
                layers[f"norm{name}"] = nn.BatchNorm1d(width)
                layers[f"relu{name}"] = nn.ReLU()
                channels = width
        self.features = nn.Sequential(layers)
        self.classifier = nn.Linear(channels, spec.classes)

    def forward(self, windows: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(windows).mean(dim=2))
        return logits


def convnet1d(spec: ModelSpec) -> nn.Module:
    return ConvNet1d(spec)
