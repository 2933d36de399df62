"""How one run trains on this board: settled before its first step and kept, so that it goes on in the same way ever after."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Precision = Literal["float32", "bfloat16"]
Device = Literal["cpu", "cuda"]


class Settings(Struct, frozen=True):
    """What a run has settled on.

    Attributes:
        epochs: passes over the training inputs.
        micro_batch: inputs that are in memory at a time; their gradients add up to those of the whole batch.
        recompute: whether activations are computed anew in the backward pass, not kept.
        spare: whether memory goes back as soon as it is freed.
        tidy: whether freed memory that lies about in pieces goes back before each step.
        precision: of the forward pass; weights, gradients and norms are float32 always.
        channels_last: whether images lie in memory channel by channel of each pixel.
        device: where the model is trained.
    """

    epochs: int
    micro_batch: int
    recompute: bool = False
    spare: bool = False
    precision: Precision = "float32"
    channels_last: bool = False
    device: Device = "cpu"
    tidy: bool = False
