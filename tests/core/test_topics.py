from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconvene_agent.core.topics import CommandTopic, Topics, of_any_device, valid_segment

TOPICS = Topics("te", "board-1")
segments = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._:-]{0,127}\Z")


@given(root=segments, device=segments, op=segments, command=segments)
def test_a_command_is_found_again_in_its_topic(root: str, device: str, op: str, command: str) -> None:
    topics = Topics(root, device)
    assert topics.parse_command(topics.command(op, command)) == CommandTopic(op, command)


@given(root=segments, device=segments, name=segments, other=segments)
def test_no_topic_has_more_than_seven_slashes(root: str, device: str, name: str, other: str) -> None:
    topics = Topics(root, device)
    made = [topics.service, topics.health, topics.commands, topics.twin(name), topics.measurement(name), topics.event(name)]
    made += [topics.capability(name), topics.command(name, other)]
    assert max(topic.count("/") for topic in made) <= 7
    assert len(set(made)) == len(made)


def test_the_scheme() -> None:
    service = "te/device/board-1/service/reconvene-agent"
    assert TOPICS.service == service
    assert TOPICS.health == f"{service}/status/health"
    assert TOPICS.twin("model") == f"{service}/twin/model"
    assert TOPICS.measurement("system") == f"{service}/m/system"
    assert TOPICS.event("epoch") == f"{service}/e/epoch"
    assert TOPICS.capability("plan") == f"{service}/cmd/plan"
    assert TOPICS.command("plan", "1") == f"{service}/cmd/plan/1"
    assert TOPICS.commands == f"{service}/cmd/+/+"


@pytest.mark.parametrize("text", ["", "-a", ".", "a/b", "a+", "#", "a b", "a\n", "\na", "ä", "a\0", "a" * 129, "$SYS"])
def test_what_cannot_stand_in_a_topic(text: str) -> None:
    assert not valid_segment(text)


@pytest.mark.parametrize(
    "topic",
    [
        "",
        TOPICS.service,
        TOPICS.health,
        TOPICS.capability("plan"),
        TOPICS.command("plan", ""),
        TOPICS.command("", "1"),
        TOPICS.command("plan", "1/2"),
        TOPICS.command("plan", "1\n"),
        TOPICS.command("plan", "+"),
        Topics("te", "board-2").command("plan", "1"),
        Topics("xx", "board-1").command("plan", "1"),
        "x" + TOPICS.command("plan", "1"),
    ],
)
def test_other_topics_are_no_commands(topic: str) -> None:
    assert TOPICS.parse_command(topic) is None


@given(st.text())
def test_no_tail_breaks_it(tail: str) -> None:
    found = TOPICS.parse_command(TOPICS.capability(tail))
    assert found is None or TOPICS.command(found.op, found.id) == TOPICS.capability(tail)


@given(root=segments, device=segments, name=segments)
def test_a_topic_tells_its_device(root: str, device: str, name: str) -> None:
    topics = Topics(root, device)
    assert of_any_device(root, topics.service) == (device, "")
    assert of_any_device(root, topics.twin(name)) == (device, f"twin/{name}")
    assert of_any_device(root + "x", topics.twin(name)) is None


@pytest.mark.parametrize(
    "topic",
    [
        "te/device/b/service/other/x",
        "te/device//service/reconvene-agent/x",
        "te/device/b",
        "te/device/b/service/reconvene-agentx",
    ],
)
def test_other_topics_belong_to_no_device(topic: str) -> None:
    assert of_any_device("te", topic) is None
