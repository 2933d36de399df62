from __future__ import annotations

import pytest

from reconvene_agent.core.architectures import Kind
from reconvene_agent.worker.data.inputs import items, kind_of


@pytest.mark.parametrize(("shape", "kind"), [((24,), "features"), ((6, 128), "window"), ((3, 32, 32), "image")])
def test_the_number_of_sides_tells_the_kind(shape: tuple[int, ...], kind: Kind) -> None:
    assert kind_of(shape) == kind


@pytest.mark.parametrize(
    ("kind", "one", "many"), [("features", "row", "rows"), ("window", "window", "windows"), ("image", "image", "images")]
)
def test_inputs_are_called_what_people_call_them(kind: Kind, one: str, many: str) -> None:
    assert (items(kind, 1), items(kind), items(kind, 0)) == (one, many, many)
