from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from reconvene_agent.core.budget import Budget, Limit
from reconvene_agent.core.gate import ENOUGH_TO_TELL, NOISE, Evidence, Rival, judge, too_slow
from reconvene_agent.core.release import Latency

FAST = Latency(1.0, 2.0, 100)
GOOD = Evidence(accuracy=0.9, recall=0.9, classes=10, held_out=1000, rival=Rival("r0001-00000000", 0.91), latency=FAST)


def shortfalls(evidence: Evidence, margin: float, budget: Budget) -> list[str]:
    return list(judge(evidence, margin, budget).refused)


def test_what_is_as_good_and_fast_enough_has_earned_its_place() -> None:
    assert shortfalls(GOOD, 0.02, Budget(latency_ms=Limit(2.0, "test"))) == []


def test_a_worse_one_is_told_by_how_much() -> None:
    (line,) = shortfalls(replace(GOOD, accuracy=0.853), 0.02, Budget())
    assert line == "its accuracy of 85.3% is 5.7 points below the 91.0% of r0001-00000000, which serves now; 2 are allowed"


@pytest.mark.parametrize("rival", [None, Rival("r0001-00000000", None, "it has other labels")])
def test_without_a_rival_there_is_none_to_be_worse_than(rival: Rival | None) -> None:
    assert shortfalls(replace(GOOD, accuracy=0.2, rival=rival), 0.02, Budget()) == []


def test_a_slow_one_is_told_by_how_much_and_whose_limit_it_is() -> None:
    budget = Budget(latency_ms=Limit(1.5, "command"), latency_p50_ms=Limit(0.5, "configuration"))
    assert shortfalls(GOOD, 0.02, budget) == [
        "latency_ms is 2 where 1.5 is allowed (command)",
        "latency_p50_ms is 1 where 0.5 is allowed (configuration)",
    ]


def test_noise_is_no_slowness() -> None:
    assert too_slow(Latency(1.0, 2.0 * NOISE), Budget(latency_ms=Limit(2.0, "test"))) == []
    assert too_slow(Latency(1.0, 2.0 * NOISE + 0.01), Budget(latency_ms=Limit(2.0, "test"))) != []


def test_other_limits_than_latency_are_not_the_gates() -> None:
    assert shortfalls(GOOD, 0.02, Budget(model_mb=Limit(1e-9, "test"), training_minutes=Limit(1e-9, "test"))) == []


def test_one_that_only_guesses_is_refused_where_there_are_inputs_enough_to_tell() -> None:
    guesses = replace(GOOD, recall=0.1, rival=None)
    assert shortfalls(guesses, 0.02, Budget()) == [
        "it recognises 10.0% of each class on average, which is guessing among 10 classes"
    ]
    assert shortfalls(replace(guesses, held_out=ENOUGH_TO_TELL - 1), 0.02, Budget()) == []
    assert shortfalls(replace(guesses, recall=0.12), 0.02, Budget()) == []
    assert shortfalls(replace(guesses, classes=1, recall=1.0), 0.02, Budget()) == []


def test_a_model_of_rare_events_need_not_be_right_more_often_than_one_that_never_sees_any() -> None:
    # 95 of 100 inputs are of one class; it finds most of the others, at the price of some false alarms.
    assert shortfalls(replace(GOOD, accuracy=0.93, recall=0.85, classes=2, rival=None), 0.02, Budget()) == []


@given(st.integers(100, 10_000), st.data())
def test_a_margin_is_allowed_to_the_very_input(held_out: int, data: st.DataObject) -> None:
    margin = data.draw(st.integers(0, 20))
    theirs = data.draw(st.integers(margin, held_out))
    evidence = Evidence((theirs - margin) / held_out, 1.0, 10, held_out, Rival("r0001-00000000", theirs / held_out), FAST)
    assert shortfalls(evidence, margin / held_out, Budget()) == []
    assert shortfalls(replace(evidence, accuracy=(theirs - margin - 1) / held_out), margin / held_out, Budget()) != []


@pytest.mark.parametrize(
    ("changes", "margin", "collapsed"),
    [
        ({"accuracy": 0.87}, 0.02, False),
        ({"accuracy": 0.5}, 0.02, True),
        ({"accuracy": 0.5}, 0.6, False),
        ({"recall": 0.1}, 0.02, True),
        ({"latency": Latency(90.0, 99.0)}, 0.02, False),
    ],
)
def test_a_collapse_is_more_than_a_shortfall(changes: dict[str, object], margin: float, collapsed: bool) -> None:
    assert judge(replace(GOOD, **changes), margin, Budget(latency_ms=Limit(2.0, "test"))).collapsed is collapsed
