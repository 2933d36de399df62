from __future__ import annotations

import msgspec

from reconvene_agent.core.job import Step
from reconvene_agent.core.protocol import Done, Progress
from reconvene_agent.daemon import effects as do
from reconvene_agent.daemon import events
from support.agents import JOB, AgentBench, command_topic


def test_the_same_command_again_only_repeats_its_state(bench: AgentBench) -> None:
    bench.command(JOB, {"sparsity": 0.5})
    bench.forget()
    bench.command(JOB, {"sparsity": 0.5})
    assert bench.statuses(JOB) == ["executing"]
    assert not bench.done(do.Launch)
    assert not bench.done(do.Save)


def test_another_order_of_its_fields_is_the_same_command(bench: AgentBench) -> None:
    bench.receive(command_topic(JOB), b'{"status":"init","args":{"sparsity":0.5,"bundle":"b"},"requester":"me"}')
    bench.forget()
    bench.receive(command_topic(JOB), b'{"requester":"me","args":{"bundle":"b","sparsity":0.5},"status":"init"}')
    assert bench.statuses(JOB) == ["executing"]


def test_the_same_id_for_something_else_is_refused_and_the_first_one_stays(bench: AgentBench) -> None:
    bench.command(JOB, {"sparsity": 0.5})
    bench.forget()
    bench.command(JOB, {"sparsity": 0.9})
    refused, restored = bench.done(do.Publish)
    assert msgspec.json.decode(refused.payload)["error"]["code"] == "ID_REUSED"
    assert not refused.retain, "the answer passes by"
    assert (restored.retain, msgspec.json.decode(restored.payload)["args"]) == (True, {"sparsity": 0.5})
    bench.say(Done({}))
    bench.end()
    assert bench.statuses(JOB)[-1] == "successful"


def test_the_same_id_under_another_operation_is_another_command(bench: AgentBench) -> None:
    bench.command("ping/1")
    bench.command("plan/1")
    assert bench.statuses("plan/1")[-1] == "executing"


def test_garbage_under_a_known_id_does_not_lose_its_state(bench: AgentBench) -> None:
    bench.command(JOB)
    for payload in (b"{", b"[]", b'{"a":' * 99):
        bench.forget()
        bench.receive(command_topic(JOB), payload)
        assert [effect.retain for effect in bench.done(do.Publish)] == [False, True]
        assert bench.statuses(JOB)[-1] == "executing"


def test_our_own_echo_does_nothing(bench: AgentBench) -> None:
    bench.command(JOB)
    echoes = [effect.payload for effect in bench.done(do.Publish) if effect.topic == command_topic(JOB)]
    bench.forget()
    for echo in echoes:
        bench.receive(command_topic(JOB), echo)
    assert bench.effects == []


def test_an_answer_to_nobody_is_not_answered_again(bench: AgentBench) -> None:
    bench.command("reboot/1")
    (answer,) = bench.done(do.Publish)
    bench.forget()
    bench.receive(command_topic("reboot/1"), answer.payload)
    assert bench.effects == []


def test_a_newer_revision_at_the_broker_is_overtaken(bench: AgentBench) -> None:
    bench.command(JOB)
    state = bench.states(JOB)[-1]
    bench.forget()
    bench.receive(command_topic(JOB), msgspec.json.encode({**state, "rev": 50}))
    assert [found["rev"] for found in bench.states(JOB)] == [51]
    bench.say(Progress(Step.PLAN, 0.5))
    assert bench.states(JOB)[-1]["rev"] == 52


def test_a_state_too_large_to_be_read_back_is_not_published_for_ever(bench: AgentBench) -> None:
    bench.command("ping/1", filler="x" * (256 * 1024 - 60))
    (state,) = [effect.payload for effect in bench.done(do.Publish)]
    assert len(state) > 256 * 1024
    bench.forget()
    bench.post(events.Received(command_topic("ping/1"), None, len(state)))
    assert bench.effects == []


def test_what_overtakes_a_newer_revision_is_not_older_after_a_crash(bench: AgentBench) -> None:
    bench.command(JOB)
    bench.receive(command_topic(JOB), b'{"status":"executing","rev":5000}')
    shown = bench.states(JOB)[-1]["rev"]
    assert bench.journal[JOB].rev == shown > 5000
    bench.forget()
    bench.restart()
    assert bench.states(JOB)[0]["rev"] > shown
