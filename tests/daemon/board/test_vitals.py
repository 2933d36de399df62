from __future__ import annotations

import pytest
from msgspec.structs import replace

from reconvene_agent.core.device import Storage
from reconvene_agent.daemon import effects as do
from reconvene_agent.daemon.board.vitals import Vitals
from reconvene_agent.daemon.effects import Effect
from reconvene_agent.daemon.reporting.alarms import Alarms
from support.agents import TOPICS, WALL
from support.values import device


class Board:
    """A board that is sampled again and again."""

    def __init__(self) -> None:
        self.alarms = Alarms(TOPICS)
        self._vitals = Vitals(TOPICS, self.alarms)

    def sample(self, free_mb: float = 9000.0, total_mb: float = 32000.0, held_down: bool | None = None) -> list[Effect]:
        board = replace(device(), storage=Storage("/state", total_mb, free_mb))
        return list(self._vitals.sampled(board, held_down, WALL))


def throttled(effects: list[Effect]) -> int:
    return sum(isinstance(effect, do.Record) and effect.topic == TOPICS.event("throttled") for effect in effects)


def test_clocks_that_are_held_down_are_told_when_it_begins() -> None:
    board = Board()
    told = [throttled(board.sample(held_down=state)) for state in (None, False, True, True, None, True, False, True)]
    assert told == [0, 0, 1, 0, 0, 1, 0, 1]


@pytest.mark.parametrize(("total_mb", "least_mb"), [(32000.0, 256.0), (1000.0, 50.0), (16.0, 0.8)])
def test_a_disk_is_nearly_full_until_clearly_more_is_free(total_mb: float, least_mb: float) -> None:
    board = Board()
    assert board.sample(least_mb, total_mb) == []
    (publication,) = (effect for effect in board.sample(0.99 * least_mb, total_mb) if isinstance(effect, do.Publish))
    assert publication.topic == TOPICS.alarm("disk_nearly_full")
    (text,) = board.alarms.problems
    assert text == f"the disk of /state is nearly full: free at least {1.5 * least_mb:.3g} MiB of it"
    assert board.sample(0.5 * least_mb, total_mb) == [], "it is no news"
    assert board.sample(1.49 * least_mb, total_mb) == [], "it would come and go"
    assert do.Publish(publication.topic, b"") in board.sample(1.5 * least_mb, total_mb)
    assert board.alarms.problems == []
    assert board.sample(1.2 * least_mb, total_mb) == []


def test_a_disk_that_does_not_answer_is_not_called_full() -> None:
    board = Board()
    assert board.sample(0.0, 0.0) == []
