from __future__ import annotations

import numpy as np
import pytest

from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.core.errors import AgentError
from reconvene_agent.worker.data.classes import number_classes, remarks
from reconvene_agent.worker.data.dataset import Part

LABELS = ("ant", "bee", "cat", "dog")


def part(*counts: int) -> Part:
    classes = np.repeat(np.arange(len(counts)), counts)
    return Part(np.zeros((len(classes), 1, 4, 4), dtype=np.uint8), classes)


@pytest.mark.parametrize(
    ("train", "held", "said"),
    [
        ((9, 9, 9, 9), (3, 3, 3, 3), ()),
        ((9, 0, 9, 9), (3, 0, 3, 3), ("classes with no images: the model cannot tell them: bee",)),
        ((9, 2, 9, 1), (3, 2, 3, 1), ("classes with fewer than 5 images: more would help: bee (4), dog (2)",)),
        (
            (9, 9, 0, 9),
            (3, 3, 9, 3),
            ("classes with images in the held-out part alone: the model cannot learn them: cat",),
        ),
        (
            (9, 9, 9, 9),
            (3, 3, 0, 0),
            ("classes with no held-out images: how well they are told is not measured: cat, dog",),
        ),
    ],
)
def test_classes_with_too_few_inputs_are_told(train: tuple[int, ...], held: tuple[int, ...], said: tuple[str, ...]) -> None:
    assert remarks(part(*train), part(*held), LABELS, 4) == said


def test_without_labels_they_are_told_by_number() -> None:
    assert remarks(part(9, 0, 9), part(9, 0, 9), (), 3) == ("classes with no images: the model cannot tell them: 1",)


def test_of_many_classes_the_first_are_named() -> None:
    (said,) = remarks(part(9), part(9), (), 30)
    assert said.endswith(": 1, 2, 3, 4, 5, 6, 7, 8 and 21 more")


def test_labels_decide_the_numbers_and_other_names_have_none() -> None:
    spec = ModelSpec("vgg11", (1, 4, 4), 4)
    assert number_classes(("cow", "dog", "ant"), spec, LABELS) == ({"dog": 3, "ant": 0}, LABELS)


def test_without_labels_the_order_of_names_does() -> None:
    spec = ModelSpec("vgg11", (1, 4, 4), 2)
    assert number_classes(("a", "b"), spec, ()) == ({"a": 0, "b": 1}, ("a", "b"))
    with pytest.raises(AgentError, match=r"the data's classes are 3 \(a, b, c\), the bundle's 2"):
        number_classes(("a", "b", "c"), spec, ())
