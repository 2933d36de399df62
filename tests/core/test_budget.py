from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconvene_agent.core.budget import Budget, BudgetLimits, Limit, resolve, tighter, under


def test_without_limits_there_is_no_budget() -> None:
    assert resolve([("profile", BudgetLimits()), ("command", BudgetLimits())], 512.0) == Budget()
    assert list(Budget().limits()) == []


def test_the_later_source_wins_limit_by_limit() -> None:
    found = resolve(
        [
            ("profile", BudgetLimits(latency_ms=50.0, model_mb=8.0)),
            ("configuration", BudgetLimits(latency_ms=20.0)),
            ("command", BudgetLimits(memory_mb=64.0)),
        ],
        512.0,
    )
    assert found == Budget(
        latency_ms=Limit(20.0, "configuration"), memory_mb=Limit(64.0, "command"), model_mb=Limit(8.0, "profile")
    )


def test_a_share_is_of_what_is_available_and_says_so() -> None:
    found = resolve([("profile", BudgetLimits(memory_share=0.25, training_memory_share=0.5))], 400.0)
    assert found.memory_mb == Limit(100.0, "profile: 25% of 400 MiB available")
    assert found.training_memory_mb == Limit(200.0, "profile: 50% of 400 MiB available")


def test_an_absolute_limit_wins_over_a_share_of_the_same_source() -> None:
    assert resolve([("command", BudgetLimits(memory_share=0.5, memory_mb=64.0))], 512.0).memory_mb == Limit(64.0, "command")


def test_a_later_share_wins_over_an_earlier_absolute_limit() -> None:
    sources = [("profile", BudgetLimits(memory_mb=64.0)), ("command", BudgetLimits(memory_share=0.5))]
    assert resolve(sources, 512.0).memory_mb == Limit(256.0, "command: 50% of 512 MiB available")


def test_shares_are_of_what_is_not_reserved_and_no_limit_reaches_into_that() -> None:
    profile = ("profile", BudgetLimits(memory_share=0.5, training_memory_mb=450.0, reserve_mb=50.0))
    found = resolve([profile, ("configuration", BudgetLimits(reserve_mb=100.0))], 500.0)
    assert found.memory_mb == Limit(200.0, "profile: 50% of 400 MiB that configuration does not reserve")
    assert found.training_memory_mb == Limit(400.0, "profile, less what configuration reserves")
    assert resolve([profile, ("command", BudgetLimits(reserve_mb=0.0))], 500.0).memory_mb == Limit(
        250.0, "profile: 50% of 500 MiB available"
    )


def test_a_reserve_larger_than_what_is_available_leaves_a_limit_that_nothing_meets() -> None:
    found = resolve([("profile", BudgetLimits(memory_share=0.5, training_memory_mb=64.0, reserve_mb=500.0))], 300.0)
    assert found.memory_mb is not None
    assert found.training_memory_mb is not None
    assert (found.memory_mb.value, found.training_memory_mb.value) == (0.5, 1.0)


def test_limits_are_told_by_name() -> None:
    budget = Budget(latency_ms=Limit(5.0, "x"), model_mb=Limit(1.0, "y"))
    assert list(budget.limits()) == [("latency_ms", Limit(5.0, "x")), ("model_mb", Limit(1.0, "y"))]


@pytest.mark.parametrize(
    "document",
    [
        {"latency_p50_ms": 0},
        {"training_minutes": 0},
        {"reserve_mb": -1},
        {"latency_ms": 0},
        {"latency_ms": -1},
        {"memory_share": 1.01},
        {"memory_share": 0},
        {"latency": 5},
        {"model_mb": "5"},
    ],
)
def test_what_is_no_limit_is_refused(document: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(document, BudgetLimits)


names = st.sampled_from(["latency_ms", "latency_p50_ms", "memory_mb", "training_memory_mb", "model_mb", "training_minutes"])
shares = st.sampled_from(["memory_share", "training_memory_share"])
limits = st.builds(
    lambda absolute, share: BudgetLimits(**absolute, **share),
    st.dictionaries(names, st.floats(0.1, 1e4)),
    st.dictionaries(shares, st.floats(0.01, 1.0)),
)


@given(st.lists(limits, max_size=4), st.floats(1.0, 1e5))
def test_each_limit_comes_from_the_last_source_that_says_it(sources: list[BudgetLimits], available: float) -> None:
    found = resolve([(str(number), source) for number, source in enumerate(sources)], available)
    for name in ("latency_ms", "latency_p50_ms", "memory_mb", "training_memory_mb", "model_mb", "training_minutes"):
        spoken = [
            (number, value)
            for number, source in enumerate(sources)
            for share, value in (
                (True, getattr(source, name.replace("_mb", "_share"), msgspec.UNSET)),
                (False, getattr(source, name)),
            )
            if value is not msgspec.UNSET and not (share and name == "model_mb")
        ]
        limit: Limit | None = getattr(found, name)
        if not spoken:
            assert limit is None
        else:
            assert limit is not None
            assert limit.source.split(":")[0] == str(spoken[-1][0])


def test_a_run_that_was_killed_for_want_of_memory_gets_less() -> None:
    ceilings = tighter({"memory_mb": 50.0, "training_memory_mb": 200.0})
    assert ceilings == {"memory_mb": pytest.approx(35.0), "training_memory_mb": pytest.approx(140.0)}
    budget = Budget(latency_ms=Limit(5.0, "a"), memory_mb=Limit(60.0, "a"))
    found = under(budget, ceilings)
    assert found.latency_ms == Limit(5.0, "a")
    assert found.memory_mb == Limit(ceilings["memory_mb"], "less than the 50 MiB that were too much")
    assert found.training_memory_mb == Limit(ceilings["training_memory_mb"], "less than the 200 MiB that were too much")


def test_a_limit_below_its_ceiling_stays() -> None:
    budget = Budget(memory_mb=Limit(10.0, "a"))
    assert under(budget, {"memory_mb": 10.5}) == budget
    assert under(budget, {}) == budget
