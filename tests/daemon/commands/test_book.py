from __future__ import annotations

from typing import Any

import msgspec
import pytest

from reconvene_agent.core.clock import Now
from reconvene_agent.core.job import Command, Status
from reconvene_agent.core.protocol import Done
from reconvene_agent.daemon.commands import book
from reconvene_agent.daemon.commands.book import (
    CLEAR_AFTER_S,
    FORGET_AFTER_S,
    MAX_KEPT,
    CommandBook,
    envelope_of,
    expired,
    waits_for,
)
from reconvene_agent.daemon.effects import Effect, Forget, Publish, Save
from support.agents import TOPICS, WALL, AgentBench

NOW = Now(WALL, 500.0)
UNSURE = Now(WALL, 500.0, False)


def command(number: int = 1, status: Status = Status.SCHEDULED, age: float = 0.0, **request: Any) -> Command:
    facts: dict[str, Any] = request.pop("facts", {})
    return Command("plan", str(number), request, "", WALL + number, WALL - age, status, **facts)


def shown(effects: list[Effect]) -> list[str]:
    return [type(effect).__name__ for effect in effects]


def test_commands_are_found_by_label_or_id() -> None:
    waiting, ended = command(1), command(2, Status.FAILED)
    kept = CommandBook([waiting, ended])
    assert kept.get("plan/1") == waiting
    assert kept.get("plan/3") is None
    assert kept.find("1", besides="cancel/1") == waiting
    assert kept.find("1", besides="plan/1") is None
    assert kept.find("2", besides="cancel/1") is None, "what has ended is not found for stopping it"
    kept.remove("plan/1")
    kept.remove("plan/1")
    assert kept.get("plan/1") is None


def test_unfinished_ones_come_in_the_order_they_were_received() -> None:
    kept = CommandBook([command(3), command(1, Status.EXECUTING), command(2), command(4, Status.SUCCESSFUL)])
    assert [found.id for found in kept.unfinished()] == ["1", "2", "3"]
    assert [found.id for found in kept.scheduled()] == ["2", "3"]


def test_a_clock_that_is_set_back_changes_no_order() -> None:
    kept = CommandBook([])
    for number in (3, 1, 2):
        kept.put(command(number))
    assert [found.id for found in kept.unfinished()] == ["3", "1", "2"]
    for number in (1, 3):
        kept.put(command(number, Status.FAILED, age=number))
    kept.put(command(1, Status.FAILED, facts={"acknowledged": True}))
    for reopened in (kept, CommandBook(reversed(kept.every()))):
        assert [found.id for found in reopened.unfinished()] == ["2"]
        assert [found.id for found in reopened.ended()] == ["1", "3"]
        assert reopened.put(command(9)).turn == 6


def test_the_job_that_ended_last_is_told_even_where_the_clock_was_set_back(bench: AgentBench) -> None:
    for label, wall in (("plan/1", WALL), ("plan/2", WALL - 3600)):
        bench.now = Now(wall, bench.now.mono)
        bench.command(label)
        bench.say(Done({}), label)
        bench.end(label)
    bench.restart()
    bench.forget()
    bench.connect()
    told = [msgspec.json.decode(each.payload) for each in bench.done(Publish) if each.topic == TOPICS.twin("last_result")]
    assert [document["id"] for document in told] == ["2"]


def test_ends_that_the_broker_may_not_know() -> None:
    kept = CommandBook(
        [
            command(1, Status.FAILED),
            command(2, Status.SUCCESSFUL, facts={"acknowledged": True}),
            command(3, Status.SUCCESSFUL, facts={"cleared": True}),
            command(4),
        ]
    )
    assert [found.id for found in kept.unacknowledged()] == ["1"]


@pytest.mark.parametrize(
    ("request_", "now", "waits"),
    [
        ({}, NOW, ""),
        ({}, UNSURE, ""),
        ({"not_before": WALL}, NOW, ""),
        ({"not_before": WALL + 1}, NOW, "waits for its not_before"),
        ({"not_before": WALL - 1}, UNSURE, book.WAITING_FOR_CLOCK),
        ({"expires_at": WALL + 1}, NOW, ""),
        ({"expires_at": WALL + 1}, UNSURE, book.WAITING_FOR_CLOCK),
        ({"timeout_s": 1}, UNSURE, ""),
    ],
)
def test_why_a_command_waits(request_: dict[str, Any], now: Now, waits: str) -> None:
    assert waits_for(envelope_of(command(**request_)), now) == waits


@pytest.mark.parametrize(("moment", "now", "late"), [(0, NOW, True), (1, NOW, False), (-9, NOW, True), (-9, UNSURE, False)])
def test_when_a_command_has_expired(moment: float, now: Now, late: bool) -> None:
    assert expired(envelope_of(command(expires_at=WALL + moment)), now) is late


@pytest.mark.parametrize(
    ("request_", "now", "due"),
    [
        ({}, NOW, None),
        ({"not_before": WALL + 30}, NOW, 530.0),
        ({"expires_at": WALL + 20, "not_before": WALL + 30}, NOW, 520.0),
        ({"expires_at": WALL + 20, "not_before": WALL - 30}, NOW, 520.0),
        ({"not_before": WALL - 30}, NOW, None),
        ({"not_before": WALL + 30}, UNSURE, 500.0 + book.UNSYNCHRONIZED_RETRY_S),
    ],
)
def test_when_to_look_again(request_: dict[str, Any], now: Now, due: float | None) -> None:
    assert CommandBook([command(**request_)]).next_start(now) == due


def test_the_earliest_of_several_is_due() -> None:
    kept = CommandBook([command(1, not_before=WALL + 30), command(2, not_before=WALL + 10), command(3, Status.FAILED)])
    assert kept.next_start(NOW) == 510.0


def ended(number: int = 1, age: float = 0.0, **facts: Any) -> Command:
    """Return a command whose end the broker has had for so many seconds."""
    known = {"acknowledged": True, "shown_since": WALL - age, **facts}
    return command(number, Status.FAILED, age, facts=known)


def test_ends_are_cleared_after_a_day_and_forgotten_after_a_week() -> None:
    kept = CommandBook([ended(1, CLEAR_AFTER_S - 1), ended(2, CLEAR_AFTER_S + 1)])
    effects = kept.tidy(TOPICS, NOW, True)
    assert effects == [Save(ended(2, CLEAR_AFTER_S + 1, cleared=True)), Publish(TOPICS.command("plan", "2"), b"")]
    assert kept.tidy(TOPICS, NOW, True) == [], "once"
    later = Now(WALL + FORGET_AFTER_S - CLEAR_AFTER_S, 0.0)
    assert shown(kept.tidy(TOPICS, later, True)) == ["Forget", "Save", "Publish"]
    assert kept.get("plan/2") is None
    assert kept.get("plan/1") is not None


def test_without_a_connection_nothing_is_cleared() -> None:
    kept = CommandBook([ended(1, FORGET_AFTER_S + 1)])
    assert kept.tidy(TOPICS, NOW, False) == []
    assert shown(kept.tidy(TOPICS, NOW, True)) == ["Forget", "Publish"]


def test_what_is_cleared_already_is_forgotten_offline_too() -> None:
    kept = CommandBook([ended(1, FORGET_AFTER_S + 1, cleared=True)])
    assert shown(kept.tidy(TOPICS, NOW, False)) == ["Forget"]


def test_a_clock_that_nobody_vouches_for_ages_nothing() -> None:
    kept = CommandBook([ended(1, 10 * FORGET_AFTER_S)])
    assert kept.tidy(TOPICS, UNSURE, True) == []


def test_what_the_broker_has_not_confirmed_is_not_cleared_however_old() -> None:
    kept = CommandBook([command(1, Status.FAILED, 10 * FORGET_AFTER_S)])
    assert kept.tidy(TOPICS, NOW, True) == []
    assert kept.tidy(TOPICS, Now(WALL, NOW.mono + 2 * CLEAR_AFTER_S), True) == []


def test_the_day_of_what_ended_without_a_clock_begins_with_the_clock() -> None:
    kept = CommandBook([command(1, Status.FAILED, WALL, facts={"acknowledged": True})])
    assert kept.tidy(TOPICS, UNSURE, True) == []
    assert shown(kept.tidy(TOPICS, NOW, True)) == ["Save"]
    assert kept.tidy(TOPICS, Now(WALL + CLEAR_AFTER_S, 600.0), True) == []
    assert shown(kept.tidy(TOPICS, Now(WALL + CLEAR_AFTER_S + 1, 601.0), True)) == ["Save", "Publish"]


def test_the_day_begins_anew_where_the_clock_was_ahead() -> None:
    kept = CommandBook([ended(1, -365 * 24 * 3600.0)])
    assert shown(kept.tidy(TOPICS, NOW, True)) == ["Save"]
    assert shown(kept.tidy(TOPICS, Now(WALL + CLEAR_AFTER_S + 1, 600.0), True)) == ["Save", "Publish"]


def test_without_a_clock_it_is_a_day_of_running() -> None:
    kept = CommandBook([command(1, Status.FAILED, facts={"acknowledged": True})])
    assert kept.tidy(TOPICS, UNSURE, True) == []
    assert kept.tidy(TOPICS, Now(0.0, UNSURE.mono + CLEAR_AFTER_S, False), True) == []
    assert shown(kept.tidy(TOPICS, Now(0.0, UNSURE.mono + CLEAR_AFTER_S + 1, False), True)) == ["Save", "Publish"]


def test_unfinished_commands_are_never_cleared() -> None:
    kept = CommandBook([command(1, Status.SCHEDULED, 1e9), command(2, Status.EXECUTING, 1e9)])
    assert kept.tidy(TOPICS, NOW, True) == []


def test_their_number_is_bounded_and_the_oldest_go_first() -> None:
    kept = CommandBook([command(number, Status.FAILED, age=1000 - number / 10) for number in range(MAX_KEPT + 3)])
    effects = kept.tidy(TOPICS, NOW, True)
    assert [effect.command.id for effect in effects if isinstance(effect, Forget)] == ["0", "1", "2"]
    assert [effect.payload for effect in effects if isinstance(effect, Publish)] == [b""] * 3
    assert kept.tidy(TOPICS, NOW, True) == []


def test_their_bytes_are_bounded_too() -> None:
    kept = CommandBook([command(number, Status.FAILED, 100.0 - number, x="x" * 100_000) for number in range(7)])
    assert kept.crowded
    effects = kept.tidy(TOPICS, NOW, True)
    assert [effect.command.id for effect in effects if isinstance(effect, Forget)] == ["0", "1"]
    assert not kept.crowded


@pytest.mark.parametrize("number", [MAX_KEPT, round(MAX_KEPT * book.CROWD) + 1])
def test_a_few_more_than_are_kept_are_no_crowd_yet(number: int) -> None:
    assert CommandBook([command(each, Status.FAILED) for each in range(number)]).crowded == (number > MAX_KEPT)
