"""The names of the dense models: the built-in ones, and those that installed packages bring; none of them is loaded here.

The builders live in the worker's model registry, which a test holds equal to the table of the built-in ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

Kind = Literal["image", "window", "features"]

SIDES: dict[Kind, str] = {
    "features": "(features,), for instance 24",
    "window": "(channels, length), for instance 6x128",
    "image": "(channels, height, width), for instance 3x32x32",
}
RANKS: dict[Kind, int] = {"features": 1, "window": 2, "image": 3}

ENTRY_POINTS = "reconvene_agent.models"
"""The group under which a package names the functions that build its models."""


class Architecture(NamedTuple):
    """A built-in model in a line, and the kind of input that it takes."""

    title: str
    input: Kind


ARCHITECTURES: dict[str, Architecture] = {
    "vgg11": Architecture("VGG-11 with batch-norm, 8 convolutions", "image"),
    "vgg16": Architecture("VGG-16 with batch-norm, 13 convolutions", "image"),
    "vgg19": Architecture("VGG-19 with batch-norm, 16 convolutions", "image"),
    "resnet20": Architecture("ResNet-20 for small images, 3 stages of 3 blocks", "image"),
    "resnet56": Architecture("ResNet-56 for small images, 3 stages of 9 blocks", "image"),
    "resnet18": Architecture("ResNet-18, 4 stages of 2 basic blocks", "image"),
    "resnet50": Architecture("ResNet-50, 4 stages of 3, 4, 6 and 3 bottleneck blocks", "image"),
    "mobilenet_v2": Architecture("MobileNetV2, 17 inverted residuals with depthwise convolutions", "image"),
    "vit_tiny": Architecture("Vision transformer, 12 blocks of width 192 with 3 heads", "image"),
    "convnet1d": Architecture("Convolutions over time, 5 with batch-norm", "window"),
    "mlp": Architecture("Multi-layer perceptron, 3 hidden layers with batch-norm", "features"),
}


def installed() -> dict[str, EntryPoint]:
    """Return the models that installed packages bring, by name; none is imported, and a built-in name stays the built-in one."""
    from importlib.metadata import entry_points  # pulls in a mail stack, which only those who ask should pay for

    return {entry.name: entry for entry in entry_points(group=ENTRY_POINTS) if entry.name not in ARCHITECTURES}


def exists(name: str) -> bool:
    """Tell whether a model is built in or installed here."""
    return name in ARCHITECTURES or name in installed()


def names() -> list[str]:
    """Return the names of all models that can be built here."""
    return [*ARCHITECTURES, *sorted(installed())]
