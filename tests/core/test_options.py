from __future__ import annotations

from typing import Any

import msgspec
import pytest

from reconvene_agent.core.options import (
    DEFAULT_SPARSITIES,
    Augment,
    Average,
    Criterion,
    MethodOptions,
    Sensitive,
    TrainingOptions,
    Trunk,
    Width,
    choices,
)


def test_choices_are_those_of_the_types() -> None:
    assert set(choices(Average)) == {"mean", "weighted"}
    assert set(choices(Width)) == {"density", "sqrt"}
    assert set(choices(Sensitive)) == {"masked", "dense", "shrink"}
    assert set(choices(Trunk)) == {"keep", "prune"}
    assert set(choices(Criterion)) == {"magnitude", "random", "uniform", "erk", "synflow", "snip", "grasp"}
    assert set(choices(Augment)) == {"auto", "none", "shift", "shift-flip", "jitter"}


def test_the_candidates_ascend_from_the_dense_model() -> None:
    assert DEFAULT_SPARSITIES[0] == 0.0
    assert list(DEFAULT_SPARSITIES) == sorted(set(DEFAULT_SPARSITIES))
    assert DEFAULT_SPARSITIES[-1] < 1.0


@pytest.mark.parametrize("kind", [MethodOptions, TrainingOptions])
def test_defaults_are_valid(kind: Any) -> None:
    assert msgspec.convert(msgspec.to_builtins(kind()), kind) == kind()


@pytest.mark.parametrize(
    ("kind", "document"),
    [
        (MethodOptions, {"criterion": "movement"}),
        (MethodOptions, {"min_width": 0}),
        (MethodOptions, {"width_multiplier": 0.0}),
        (MethodOptions, {"width_multiplier": 1.1}),
        (MethodOptions, {"width_multiple": -1}),
        (MethodOptions, {"width_multiple": 257}),
        (MethodOptions, {"sensitive": "drop"}),
        (MethodOptions, {"trunk": "narrow"}),
        (MethodOptions, {"other": 1}),
        (TrainingOptions, {"epochs": 0}),
        (TrainingOptions, {"batch": 1}),
        (TrainingOptions, {"learning_rate": 0}),
        (TrainingOptions, {"validation": 1.0}),
        (TrainingOptions, {"seed": 2**53}),
        (TrainingOptions, {"augment": "flip"}),
    ],
)
def test_what_makes_no_sense_is_refused(kind: Any, document: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(document, kind)
