"""Residual networks for small images: three stages of basic blocks, 16, 32 and 64 channels wide.

He et al. 2016 (arXiv 1512.03385), section 4.2, with a 1×1 convolution where a shortcut changes shape (their option B).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from reconvene_agent.core.bundle import ModelSpec

STAGE_WIDTHS = (16, 32, 64)


class Block(nn.Module):
    """Two 3×3 convolutions around a shortcut: (N, in, H, W) to (N, out, H/stride, W/stride)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, images: Tensor) -> Tensor:
        out = functional.relu(self.norm1(self.conv1(images)))
        return functional.relu(self.norm2(self.conv2(out)) + self.shortcut(images))


class ResNet(nn.Module):
    """Maps images (N, C, H, W) to logits (N, classes) through ``blocks`` blocks in each stage."""

    def __init__(self, spec: ModelSpec, blocks: int) -> None:
        super().__init__()
        width = STAGE_WIDTHS[0]
        self.conv = nn.Conv2d(spec.input[0], width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        stages: list[nn.Module] = []
        for stage, outputs in enumerate(STAGE_WIDTHS):
            strides = [1 if stage == 0 else 2] + [1] * (blocks - 1)
            row: list[nn.Module] = []
            for stride in strides:
                row.append(Block(width, outputs, stride))
                width = outputs
            stages.append(nn.Sequential(*row))
        self.stages = nn.Sequential(*stages)
        self.classifier = nn.Linear(width, spec.classes)

    def forward(self, images: Tensor) -> Tensor:
        out = functional.relu(self.norm(self.conv(images)))
        logits: Tensor = self.classifier(self.stages(out).mean(dim=(2, 3)))
        return logits


def resnet20(spec: ModelSpec) -> nn.Module:
    return ResNet(spec, 3)


def resnet56(spec: ModelSpec) -> nn.Module:
    return ResNet(spec, 9)
