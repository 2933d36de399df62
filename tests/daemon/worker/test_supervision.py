from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconvene_agent.core.config import WorkerSection
from reconvene_agent.daemon.worker.supervision import TERMINATE_GRACE_S, Action, Supervision

LIMITS = WorkerSection(start_timeout_s=10.0, stall_timeout_s=20.0, stop_timeout_s=5.0)


@pytest.fixture
def watch() -> Supervision:
    """Return the supervision of a worker started at 100 s."""
    return Supervision(LIMITS, 100.0)


def test_a_worker_has_to_shake_hands_in_time(watch: Supervision) -> None:
    assert watch.due == 110.0
    assert watch.step(109.9) is None
    assert watch.step(110.0) is Action.TERMINATE
    assert watch.verdict == "no handshake within 10 s"


def test_a_worker_has_to_speak_up_now_and_then(watch: Supervision) -> None:
    watch.heard(109.0)
    watch.heard(120.0)
    assert watch.step(139.9) is None
    assert watch.step(140.0) is Action.TERMINATE
    assert watch.verdict == "silent for 20 s"


def test_a_worker_that_is_asked_to_stop_has_its_time(watch: Supervision) -> None:
    watch.heard(101.0)
    watch.asked_to_stop(102.0)
    watch.heard(106.0)
    watch.asked_to_stop(106.5)
    assert watch.step(106.9) is None
    assert watch.step(107.0) is Action.TERMINATE
    assert watch.verdict == "", "that it had to leave was not its own fault"


def test_who_ignores_sigterm_is_killed_and_then_left_alone(watch: Supervision) -> None:
    assert watch.step(110.0) is Action.TERMINATE
    assert watch.step(110.0) is None
    assert watch.due == 110.0 + TERMINATE_GRACE_S
    assert watch.step(115.0) is Action.KILL
    assert watch.due is None
    assert watch.step(1e9) is None


def test_words_after_sigterm_change_nothing(watch: Supervision) -> None:
    watch.step(110.0)
    watch.heard(111.0)
    watch.asked_to_stop(112.0)
    assert watch.step(115.0) is Action.KILL


@given(st.lists(st.tuples(st.sampled_from(["heard", "stop", "step"]), st.floats(0, 30)), max_size=30))
def test_each_action_comes_once_and_in_order(happenings: list[tuple[str, float]]) -> None:
    watch, mono, actions = Supervision(LIMITS, 0.0), 0.0, []
    for name, pause in happenings:
        mono += pause
        if name == "heard":
            watch.heard(mono)
        elif name == "stop":
            watch.asked_to_stop(mono)
        else:
            actions.append(watch.step(mono))
    for _ in range(2):
        mono += 100
        actions.append(watch.step(mono))
    assert [action for action in actions if action] == [Action.TERMINATE, Action.KILL]
