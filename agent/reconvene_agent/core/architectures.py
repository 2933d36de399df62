"""The names of the built-in dense models, known without loading any of them.

The builders live in the worker's model registry, which a test holds equal to this table.
"""

from __future__ import annotations

ARCHITECTURES: dict[str, str] = {
    "vgg11": "VGG-11 with batch-norm, 8 convolutions",
    "vgg16": "VGG-16 with batch-norm, 13 convolutions",
    "vgg19": "VGG-19 with batch-norm, 16 convolutions",
    "resnet20": "ResNet-20 for small images, 3 stages of 3 blocks",
    "resnet56": "ResNet-56 for small images, 3 stages of 9 blocks",
}
