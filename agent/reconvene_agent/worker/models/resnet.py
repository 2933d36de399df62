"""Residual networks (He et al. 2016, arXiv 1512.03385), with a 1×1 convolution where a shortcut changes shape (option B).

Section 4.2's for small images: three stages of basic blocks, 16, 32 and 64 channels wide. Table 1's for images of any size:
four stages, 64 to 512 channels wide, of basic or of bottleneck blocks.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from reconvene_agent.core.bundle import ModelSpec

STAGE_WIDTHS = (16, 32, 64)
LARGE_STAGE_WIDTHS = (64, 128, 256, 512)
# Below this side the stem's strides would leave too little of an image for four stages.
SMALL_IMAGE = 64


class Block(nn.Module):
    """Two 3×3 convolutions around a shortcut: (N, in, H, W) to (N, out, H/stride, W/stride)."""

    expansion = 1

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


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions around a shortcut: (N, in, H, W) to (N, 4 · width, H/stride, W/stride).

    The 3×3 convolution has the stride, as in the implementations that the published accuracies come from.
    """

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, images: Tensor) -> Tensor:
        out = functional.relu(self.norm1(self.conv1(images)))
        out = functional.relu(self.norm2(self.conv2(out)))
        return functional.relu(self.norm3(self.conv3(out)) + self.shortcut(images))


class ResNet(nn.Module):
    """Maps images (N, C, H, W) to logits (N, classes) through ``blocks`` blocks in each stage."""

    def __init__(self, spec: ModelSpec, blocks: int) -> None:
        super().__init__()
        width = STAGE_WIDTHS[0]
        self.conv = nn.Conv2d(spec.input[0], width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.stages = _stages(Block, width, STAGE_WIDTHS, [blocks] * len(STAGE_WIDTHS))
        self.classifier = nn.Linear(STAGE_WIDTHS[-1], spec.classes)

    def forward(self, images: Tensor) -> Tensor:
        out = functional.relu(self.norm(self.conv(images)))
        logits: Tensor = self.classifier(self.stages(out).mean(dim=(2, 3)))
        return logits


class LargeResNet(nn.Module):
    """Maps images (N, C, H, W) to logits (N, classes) through four stages of ``blocks`` blocks.

    The stem is 7×7 with stride 2 and a max-pool, or 3×3 without either for small images.
    """

    def __init__(self, spec: ModelSpec, block: type[Block | Bottleneck], blocks: Sequence[int]) -> None:
        super().__init__()
        channels, height, width = spec.input
        stem = LARGE_STAGE_WIDTHS[0]
        if min(height, width) < SMALL_IMAGE:
            self.conv = nn.Conv2d(channels, stem, 3, padding=1, bias=False)
            self.pool: nn.Module = nn.Identity()
        else:
            self.conv = nn.Conv2d(channels, stem, 7, stride=2, padding=3, bias=False)
            self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(stem)
        self.stages = _stages(block, stem, LARGE_STAGE_WIDTHS, blocks)
        self.classifier = nn.Linear(LARGE_STAGE_WIDTHS[-1] * block.expansion, spec.classes)

    def forward(self, images: Tensor) -> Tensor:
        out = self.pool(functional.relu(self.norm(self.conv(images))))
        logits: Tensor = self.classifier(self.stages(out).mean(dim=(2, 3)))
        return logits


def _stages(block: type[Block | Bottleneck], inputs: int, widths: Sequence[int], blocks: Sequence[int]) -> nn.Sequential:
    """Return stages of so many blocks each; the first block of each but the first stage halves height and width."""
    stages: list[nn.Module] = []
    for stage, (width, count) in enumerate(zip(widths, blocks, strict=True)):
        row: list[nn.Module] = []
        for index in range(count):
            row.append(block(inputs, width, 2 if stage > 0 and index == 0 else 1))
            inputs = width * block.expansion
        stages.append(nn.Sequential(*row))
    return nn.Sequential(*stages)


def resnet20(spec: ModelSpec) -> nn.Module:
    return ResNet(spec, 3)


def resnet56(spec: ModelSpec) -> nn.Module:
    return ResNet(spec, 9)


def resnet18(spec: ModelSpec) -> nn.Module:
    return LargeResNet(spec, Block, (2, 2, 2, 2))


def resnet50(spec: ModelSpec) -> nn.Module:
    return LargeResNet(spec, Bottleneck, (3, 4, 6, 3))
