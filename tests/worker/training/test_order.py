from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconvene_agent.worker.training.order import SKEWED, Order, is_skewed

ALIKE = np.repeat(np.arange(4), 25)
RARE = np.repeat(np.arange(3), [180, 15, 5])


@given(st.integers(1, 200), st.integers(0, 5), st.integers(0, 5))
def test_classes_alike_in_number_come_each_once_in_an_order_of_every_epochs_own(count: int, epoch: int, seed: int) -> None:
    order = Order(np.arange(count) % 2, "auto", seed)
    found = order.of(epoch)
    assert sorted(found.tolist()) == list(range(count))
    assert found.tolist() == Order(np.arange(count) % 2, "auto", seed).of(epoch).tolist()
    if count > 20:
        assert found.tolist() != order.of(epoch + 1).tolist()


def test_rare_classes_come_as_often_as_others() -> None:
    order = Order(RARE, "auto", 0)
    assert order.balanced
    drawn = np.concatenate([RARE[order.of(epoch).numpy()] for epoch in range(30)])
    assert len(drawn) == 30 * len(RARE)
    assert np.bincount(drawn) / len(drawn) == pytest.approx(np.full(3, 1 / 3), abs=0.02)


def test_what_is_not_to_be_balanced_is_not() -> None:
    order = Order(RARE, "never", 0)
    assert not order.balanced
    assert sorted(order.of(0).tolist()) == list(range(len(RARE)))


@pytest.mark.parametrize(
    ("classes", "skewed"),
    [(ALIKE, False), (RARE, True), (np.zeros(9, int), False), (np.repeat([0, 7], [4, 1]), True), (np.zeros(0, int), False)],
)
def test_skewed_is_a_class_with_several_times_the_inputs_of_another(classes: np.ndarray, skewed: bool) -> None:
    assert SKEWED == 4.0
    assert is_skewed(classes) is skewed
