"""MobileNetV2: inverted residuals, each a 1×1 expansion, a depthwise 3×3 and a linear 1×1 projection.

Sandler et al. 2018 (arXiv 1801.04381), table 2. For small images the first two strides are 1, as is usual on CIFAR.
"""

from __future__ import annotations

from torch import Tensor, nn

from reconvene_agent.core.bundle import ModelSpec

STEM = 32
HEAD = 1280
SMALL_IMAGE = 64
# Expansion, channels, blocks, stride of the first block.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class ConvNorm(nn.Sequential):
    """A convolution with batch-norm and, unless it is linear, ReLU6: (N, in, H, W) to (N, out, H/stride, W/stride)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, *, linear: bool = False) -> None:
        super().__init__()
        padding = kernel // 2
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        if not linear:
            self.relu = nn.ReLU6()


class InvertedResidual(nn.Module):
    """Widens, filters each channel by itself, narrows: (N, in, H, W) to (N, out, H/stride, W/stride)."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.expand: nn.Module = ConvNorm(inputs, wide, 1) if expansion != 1 else nn.Identity()
        self.depthwise = ConvNorm(wide, wide, 3, stride, groups=wide)
        self.project = ConvNorm(wide, outputs, 1, linear=True)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.project(self.depthwise(self.expand(images)))
        return images + out if self.residual else out


class MobileNetV2(nn.Module):
    """Maps images (N, C, H, W) to logits (N, classes)."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        channels, height, width = spec.input
        small = min(height, width) < SMALL_IMAGE
        self.stem = ConvNorm(channels, STEM, 3, 1 if small else 2)
        inputs = STEM
        blocks: list[nn.Module] = []
        for stage, (expansion, outputs, count, first) in enumerate(STAGES):
            for index in range(count):
                stride = first if index == 0 and not (small and stage == 1) else 1
                blocks.append(InvertedResidual(inputs, outputs, stride, expansion))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = ConvNorm(inputs, HEAD, 1)
        self.classifier = nn.Linear(HEAD, spec.classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.head(self.blocks(self.stem(images))).mean(dim=(2, 3)))
        return logits


def mobilenet_v2(spec: ModelSpec) -> nn.Module:
    return MobileNetV2(spec)
