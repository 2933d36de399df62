"""The recorded conversation in the documentation is still what agents and controllers say; support.recording records it anew."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reconvene_agent.cli.fleet import said
from reconvene_agent.cli.fleet.picture import Picture
from reconvene_agent.cli.fleet.watching import line
from reconvene_agent.core import messages
from reconvene_agent.core.job import TRANSITIONS, Status
from reconvene_agent.core.topics import of_any_device

DOCS = Path(__file__).parents[3] / "docs"
RUN = "cmd/specialize/run-1"

Line = dict[str, Any]


@pytest.fixture(scope="module")
def conversation() -> list[Line]:
    lines: list[Line] = [msgspec.json.decode(each) for each in (DOCS / "examples/conversation.jsonl").read_bytes().splitlines()]
    for each in lines:
        found = of_any_device("te", each["topic"])
        assert found is not None
        each["rest"] = found[1]
    return lines


def states(conversation: list[Line], rest: str) -> list[dict[str, Any]]:
    return [each["message"] for each in conversation if each["rest"] == rest and each["from"] == "agent"]


def test_what_the_controller_sends_is_understood(conversation: list[Line]) -> None:
    requests = [each for each in conversation if each["from"] == "controller" and each["message"] is not None]
    assert len(requests) == 3
    for each in requests:
        op = each["rest"].split("/")[1]
        envelope = messages.decode_envelope(each["message"])
        messages.decode_args(op, envelope.args, {})


def test_what_the_agent_answers_is_understood_and_legal(conversation: list[Line]) -> None:
    answers = [said.answer(state) for state in states(conversation, RUN)]
    told = [answer for answer in answers if answer is not None]
    assert len(told) == len(answers) > 5
    assert told[-1].status is Status.SUCCESSFUL
    assert all(after.status is before.status or after.status in TRANSITIONS[before.status] for before, after in pairwise(told))
    revisions = [state["rev"] for state in states(conversation, RUN)]
    progress = [state["progress"] for state in states(conversation, RUN)]
    assert revisions == sorted(set(revisions))
    assert progress == sorted(progress)


def test_the_second_job_is_refused(conversation: list[Line]) -> None:
    (refusal,) = states(conversation, "cmd/plan/run-2")
    answer = said.answer(refusal)
    assert answer is not None
    assert answer.code == "BUSY"


def test_every_line_can_be_told_and_drawn(conversation: list[Line]) -> None:
    picture = Picture("te")
    for each in conversation:
        payload = b"" if each["message"] is None else msgspec.json.encode(each["message"])
        assert line(each["rest"], said.document(payload), len(payload)).strip()
        picture.take(each["topic"], payload, len(payload), 4e9, live=False)
    assert picture.senseless == 0
    device = picture.devices["board-1"]
    assert (device.up, device.model is not None) == (False, True)


def test_capabilities_that_were_announced_are_still_there(conversation: list[Line]) -> None:
    announced = {found[1] for each in conversation if (found := re.fullmatch(r"cmd/(\w+)", each["rest"]))}
    assert announced <= set(messages.OPERATIONS)
    assert {"specialize", "plan", "cancel", "ping"} <= announced


def test_the_page_quotes_the_recording(conversation: list[Line]) -> None:
    """Every figure that the page shows of the run is one that was recorded."""
    page = (DOCS / "fleet.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- conversation -->\n```\n(.*?)```", page, re.DOTALL)
    assert block is not None
    quoted = [each for each in block[1].splitlines() if each.strip() and each.strip() != "…"]
    assert len(quoted) > 15
    recorded = [quote(each) for each in conversation]
    for each in quoted:
        assert any(matches(each, whole) for whole in recorded), each


def quote(each: Line) -> str:
    """Return a line of the page, whole: the time, the direction, the topic, the message."""
    arrow = "→" if each["from"] == "controller" else "←"
    message = "" if each["message"] is None else msgspec.json.encode(each["message"]).decode()
    return f"{each['at']:5.2f} {arrow} {each['rest'] or '(S)'} {message}".rstrip()


def matches(short: str, whole: str) -> bool:
    """Whether a line is another with parts left out, each marked by an ellipsis."""
    pattern = ".*".join(map(re.escape, short.split("…")))
    return re.fullmatch(pattern, whole) is not None
