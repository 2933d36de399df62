"""``log_upload``: lines sent as events, once."""

from __future__ import annotations

from reconvene_agent.daemon import effects as do
from reconvene_agent.daemon import events
from support.agents import AgentBench, stored


def line(text: str) -> dict[str, str]:
    return {"time": "2026-01-01T00:00:00.000Z", "level": "info", "text": text}


def test_lines_of_the_log_are_sent_as_numbered_events(bench: AgentBench) -> None:
    bench.command("log_upload/1", {"lines": 7, "level": "info", "command": "9"})
    assert bench.done(do.ReadLog) == [do.ReadLog("log_upload/1", 7, "info", "9")]
    bench.post(events.LogRead("log_upload/1", [[line("a"), line("b")], [line("c")]]))
    told = [record.document for record in bench.done(do.Record)]
    assert [(each["part"], each["parts"], len(each["lines"])) for each in told] == [(1, 2, 2), (2, 2, 1)]
    assert bench.states("log_upload/1")[-1]["result"] == {"lines": 3, "parts": 2}
    bench.forget()
    bench.post(events.LogRead("log_upload/1", [[line("a")]]))
    assert bench.effects == []


def test_an_upload_that_a_crash_cut_off_is_interrupted() -> None:
    bench = AgentBench(known=[stored(label="log_upload/1")])
    bench.restart()
    assert bench.failure("log_upload/1") == "INTERRUPTED"
