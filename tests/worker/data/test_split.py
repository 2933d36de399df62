from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconvene_agent.worker.data.split import held_out

CONTENTS = [index.to_bytes(4, "big") for index in range(4000)]


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.9])
def test_about_the_share_that_was_asked_for_is_held_out(share: float) -> None:
    held = sum(held_out(content, share) for content in CONTENTS)
    spread = (share * (1 - share) / len(CONTENTS)) ** 0.5
    assert held / len(CONTENTS) == pytest.approx(share, abs=4 * spread)


@given(st.binary(max_size=50), st.floats(0, 1), st.floats(0, 1))
def test_what_is_held_out_for_a_share_is_held_out_for_every_larger_one(content: bytes, one: float, other: float) -> None:
    assert held_out(content, min(one, other)) <= held_out(content, max(one, other))


def test_the_side_of_an_image_is_the_same_for_ever() -> None:
    assert [index for index in range(24) if held_out(CONTENTS[index], 0.2)] == [4, 5, 7, 8, 19, 21]


def test_content_alone_decides() -> None:
    assert held_out(b"image", 0.2) == held_out(memoryview(bytearray(b"image")), 0.2)
