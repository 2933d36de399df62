"""The knobs of the method and of training, as a user names them on the command line, in the configuration and on the wire."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

Sparsity = Annotated[float, Meta(ge=0.0, lt=1.0)]
Candidates = Annotated[tuple[Sparsity, ...], Meta(min_length=1, max_length=64)]
Multiplier = Annotated[float, Meta(gt=0.0, le=1.0)]
Multipliers = Annotated[tuple[Multiplier, ...], Meta(min_length=1, max_length=64)]
Seed = Annotated[int, Meta(ge=0, le=2**53 - 1)]
"""Any integer that JSON carries exactly."""

Criterion = Literal["magnitude", "random", "uniform", "erk", "synflow", "snip", "grasp"]
Average = Literal["mean", "weighted"]
Width = Literal["density", "sqrt"]
Sensitive = Literal["masked", "dense", "shrink"]
Trunk = Literal["keep", "prune"]
Augment = Literal["auto", "none", "shift", "shift-flip", "jitter"]
Schedule = Literal["onecycle", "cosine"]
Balance = Literal["auto", "never"]
Quantize = Literal["auto", "never"]
LogLevel = Literal["debug", "info", "warning", "error"]
PrecisionChoice = Literal["auto", "float32", "bfloat16"]


class MethodOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """How a dense model becomes a small one (docs/method.md).

    Attributes:
        criterion: what scores a weight at initialisation.
        average: the density that separates sensitive from resilient: the layers' mean, or the mean weighted by parameters.
        width: share of filters a resilient layer of density d keeps: ``density`` is d, ``sqrt`` is the root of d.
        sensitive: what becomes of a sensitive layer: its unstructured mask is kept, it stays dense, or it is shrunk like a
            resilient one.
        width_multiplier: share of every prunable width that the dense model keeps before anything is scored. Other than 1,
            it is imposed: a plan then searches the sparsity alone.
        trunk: whether the embedding width of a transformer, which every block shares, may be narrowed.
        min_width: fewest channels that a group may keep; a group never collapses.
        width_multiple: narrowed widths are rounded up to a multiple of this; 0 is what the board's profile says.
    """

    criterion: Criterion = "magnitude"
    average: Average = "mean"
    width: Width = "sqrt"
    sensitive: Sensitive = "masked"
    width_multiplier: Multiplier = 1.0
    trunk: Trunk = "keep"
    min_width: Annotated[int, Meta(ge=1, le=4096)] = 4
    width_multiple: Annotated[int, Meta(ge=0, le=256)] = 0


class TrainingOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """How the small model is trained on local data.

    Attributes:
        epochs: passes over the training inputs; fewer where the budget allows less time.
        batch: inputs per step, whatever share of them is in memory at a time.
        learning_rate: peak of the schedule.
        schedule: ``onecycle`` rises for a quarter of the run and falls to almost 0; ``cosine`` warms up for a twentieth.
        weight_decay: L2 penalty.
        label_smoothing: share of the target that is spread over all classes.
        patience: epochs without a better held-out accuracy after which training stops; 0 never. The best epoch is deployed.
        ema: decay, from step to step, of an average of the weights that is judged and deployed in their place; 0 is none.
        balance: ``auto`` draws all classes as often where they differ much in number.
        precision: ``auto`` takes bfloat16 where this board is faster with it.
        augment: random changes of the training inputs; ``auto`` shifts images and jitters windows. ``shift-flip`` only where a
            mirrored image is as valid.
        validation: share of the inputs held out when the data come without a held-out part.
        overlap: share of its length that a window has in common with the next one, where recordings are cut into windows.
        seed: decides data order and augmentation.
    """

    epochs: Annotated[int, Meta(ge=1, le=10_000)] = 10
    batch: Annotated[int, Meta(ge=2, le=4096)] = 64
    learning_rate: Annotated[float, Meta(gt=0.0, le=10.0)] = 0.1
    schedule: Schedule = "onecycle"
    weight_decay: Annotated[float, Meta(ge=0.0, le=1.0)] = 5e-4
    label_smoothing: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.0
    patience: Annotated[int, Meta(ge=0, le=10_000)] = 0
    ema: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.0
    balance: Balance = "auto"
    precision: PrecisionChoice = "auto"
    augment: Augment = "auto"
    validation: Annotated[float, Meta(gt=0.0, lt=1.0)] = 0.2
    overlap: Annotated[float, Meta(ge=0.0, le=0.95)] = 0.5
    seed: Seed = 0


class ReleaseOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """What a release must be to serve (docs/releases.md).

    Attributes:
        margin: by how much its accuracy may be below that of what serves now, both on the same held-out inputs, 0 to 1.
        quantize: ``auto`` deploys int8 where that is faster here and as accurate; ``never`` deploys float32.
    """

    margin: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.02
    quantize: Quantize = "never"


DEFAULT_SPARSITIES: tuple[float, ...] = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.925, 0.95, 0.97, 0.98)
"""The candidates of a plan when none are named: finer where the pruned model changes faster."""

DEFAULT_WIDTH_MULTIPLIERS: tuple[float, ...] = (1.0, 0.85, 0.7, 0.6, 0.5, 0.4, 0.3, 0.25)


def choices(literal: object) -> tuple[str, ...]:
    """Return the names that one of the Literal types above allows, for help texts."""
    kind = msgspec.inspect.type_info(literal)
    assert isinstance(kind, msgspec.inspect.LiteralType)
    return tuple(str(value) for value in kind.values)
