"""VGG for small images: 3×3 convolutions with batch-norm and max-pooling, global average, one linear layer.

Simonyan and Zisserman 2015 (arXiv 1409.1556), in the form used on CIFAR-10: no bias in convolutions, one linear layer.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from reconvene_agent.core.bundle import ModelSpec

POOL = "M"
Stages = tuple[int | str, ...]

VGG11: Stages = (64, POOL, 128, POOL, 256, 256, POOL, 512, 512, POOL, 512, 512, POOL)
VGG16: Stages = (64, 64, POOL, 128, 128, POOL, 256, 256, 256, POOL, 512, 512, 512, POOL, 512, 512, 512, POOL)
VGG19: Stages = (64, 64, POOL, 128, 128, POOL, *(256,) * 4, POOL, *(512,) * 4, POOL, *(512,) * 4, POOL)


class VGG(nn.Module):
    """Maps images (N, C, H, W) to logits (N, classes). A pool that would leave nothing of the image is left out."""

    def __init__(self, spec: ModelSpec, stages: Stages) -> None:
        super().__init__()
        channels, height, width = spec.input
        side = min(height, width)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        stage = position = 1
        for entry in stages:
            if isinstance(entry, int):
                name = f"{stage}_{position}"
                layers[f"conv{name}"] = nn.Conv2d(channels, entry, 3, padding=1, bias=False)
                layers[f"norm{name}"] = nn.BatchNorm2d(entry)
                layers[f"relu{name}"] = nn.ReLU()
                channels, position = entry, position + 1
            else:
                if side >= 2:
                    layers[f"pool{stage}"] = nn.MaxPool2d(2)
                    side //= 2
                stage, position = stage + 1, 1
        self.features = nn.Sequential(layers)
        self.classifier = nn.Linear(channels, spec.classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(images).mean(dim=(2, 3)))
        return logits


def vgg11(spec: ModelSpec) -> nn.Module:
    return VGG(spec, VGG11)


def vgg16(spec: ModelSpec) -> nn.Module:
    return VGG(spec, VGG16)


def vgg19(spec: ModelSpec) -> nn.Module:
    return VGG(spec, VGG19)
