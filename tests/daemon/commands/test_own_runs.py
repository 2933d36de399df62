from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconvene_agent.core import messages
from reconvene_agent.core.census import Census
from reconvene_agent.core.clock import Now
from reconvene_agent.core.config import SpecializeSection
from reconvene_agent.core.errors import ErrorCode
from reconvene_agent.core.job import payload
from reconvene_agent.core.protocol import Done, Failed
from reconvene_agent.core.topics import valid_segment
from reconvene_agent.daemon import effects as do
from reconvene_agent.daemon import events
from reconvene_agent.daemon.agent import TIDY_EVERY_S
from reconvene_agent.daemon.commands import own_runs
from support.agents import CONFIG, JOB, AgentBench, key, states
from support.values import release

NOW = Now(0.0, 0.0, True)
TRAINED = Census(100, 10_000, "here")
GROWING = msgspec.structs.replace(CONFIG, specialize=SpecializeSection(bundle="b", data="d", new_data_share=0.1))


def bench(trained: Census | None = TRAINED) -> AgentBench:
    made = AgentBench(GROWING)
    made.post(events.Started())
    made.post(events.ReleaseRead(msgspec.structs.replace(release(), data=trained)))
    made.connect()
    made.forget()
    return made


def own(made: AgentBench) -> list[str]:
    return [label for label in made.journal if label.startswith("specialize/auto-")]


def test_a_command_of_our_own_is_one_that_anybody_could_have_sent() -> None:
    given = own_runs.command("specialize", {"what": "new_data", "files": 3}, NOW)
    assert valid_segment(given.id)
    assert own_runs.is_own(given)
    message = messages.decode_object(payload(given))
    assert messages.decode_envelope({**message, "status": "init"}).args == {}
    assert messages.request_of(message) == given.request
    assert given.request["requester"] == "agent"


def test_its_id_follows_from_its_cause_alone() -> None:
    one, same, other = (
        own_runs.command("specialize", {"files": files}, Now(wall, wall, True)) for files, wall in ((1, 1.0), (1, 2.0), (2, 1.0))
    )
    assert one.id == same.id != other.id


@given(st.integers(1, 1000), st.integers(0, 2000), st.floats(0.01, 2.0))
def test_a_run_is_called_for_exactly_when_enough_is_new(before: int, after: int, share: float) -> None:
    called = own_runs.for_new_data(Census(after, 0, "x"), Census(before, 0, "x"), [], share, NOW)
    assert (called is not None) == ((after - before) / before >= share)


@pytest.mark.parametrize(
    ("trained", "share"), [(None, 0.1), (Census(100, 10_000, "elsewhere"), 0.1), (TRAINED, 0.0)], ids=["unknown", "other", "off"]
)
def test_without_anything_to_compare_with_no_run_is_called_for(trained: Census | None, share: float) -> None:
    assert own_runs.for_new_data(Census(1000, 0, "here"), trained, [], share, NOW) is None


@given(st.lists(st.integers(0, 300), max_size=30))
def test_each_run_needs_as_many_new_data_again_however_the_last_one_ended(counts: list[int]) -> None:
    known = []
    for count in counts:
        called = own_runs.for_new_data(Census(count, 0, "here"), Census(100, 0, "here"), known, 0.1, NOW)
        if called is not None:
            known.append(called)
    tried = [100, *(int(each.request["cause"]["files"]) for each in known)]
    assert all(later >= 1.1 * earlier - 1e-9 for earlier, later in itertools.pairwise(tried))


def test_data_are_counted_now_and_then_unless_a_job_runs() -> None:
    made = bench()
    assert do.CountData() in made.wait(TIDY_EVERY_S)
    made.command(JOB)
    assert do.CountData() not in made.wait(TIDY_EVERY_S)
    off = AgentBench()
    off.post(events.Started())
    assert do.CountData() not in off.wait(TIDY_EVERY_S)


def test_enough_new_data_start_a_run_that_the_fleet_sees() -> None:
    made = bench()
    made.post(events.DataCounted(Census(109, 10_900, "here")))
    assert own(made) == []
    effects = made.post(events.DataCounted(Census(112, 11_200, "here")))
    (label,) = own(made)
    kinds = [type(effect) for effect in effects]
    assert kinds.index(do.Save) < kinds.index(do.Launch), "what is begun is journaled first"
    assert [state["status"] for state in states(effects, label)] == ["scheduled", "executing"]
    assert states(effects, label)[0]["requester"] == "agent"
    (event,) = made.done(do.Record)
    assert event.topic.endswith("/e/data_changed")
    assert event.document["new_share"] == 0.12
    assert event.document["command"] == label


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("failed", [False, True])
def test_the_same_data_never_start_a_second_run(failed: bool, restarted: bool) -> None:
    made = bench()
    made.post(events.DataCounted(Census(112, 11_200, "here")))
    (label,) = own(made)
    made.say(Failed(ErrorCode.BAD_DATA, "broken") if failed else Done({}), label)
    made.end(label)
    if restarted:
        made.restart()
        made.post(events.ReleaseRead(msgspec.structs.replace(release(), data=TRAINED)))
    for files in (112, 115, 123):
        made.post(events.DataCounted(Census(files, 100 * files, "here")))
    assert own(made) == [label]
    made.post(events.DataCounted(Census(124, 12_400, "here")))
    assert len(own(made)) == 2


def test_while_a_job_runs_or_the_agent_stops_nothing_is_begun() -> None:
    for busy in (lambda made: made.command(JOB), lambda made: made.post(events.StopAsked())):
        made = bench()
        busy(made)
        made.post(events.DataCounted(Census(200, 20_000, "here")))
        assert own(made) == []


def test_a_run_that_cannot_be_journaled_is_not_begun_and_may_be_later() -> None:
    made = bench()
    grown = events.DataCounted(Census(200, 20_000, "here"))
    made.post(grown)
    (label,) = own(made)
    made.post(events.JournalFailed(label, "the disk is full"))
    made.journal.clear()
    assert made.failure(label) == "NO_DISK"
    made.post(grown)
    assert own(made) == [label]


def test_it_can_be_canceled_like_any_other() -> None:
    made = bench()
    made.post(events.DataCounted(Census(200, 20_000, "here")))
    (label,) = own(made)
    made.command("cancel/1", {"id": label.split("/")[1]})
    assert do.AskWorker("cancel") in made.effects
    made.end(label)
    assert made.failure(label) == "CANCELED"
    assert key(label) in {effect.key for effect in made.done(do.Clean)}
