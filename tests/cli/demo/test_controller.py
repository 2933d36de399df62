"""The demo's controller, at a real broker, with a bus in the place of the agent."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from reconvene_agent.cli.demo.controller import Controller, Message
from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.core.topics import Topics
from support.brokers import HOST, Bus, Mosquitto, free_port, retained

TOPICS = Topics("te", "board-1")
SOON = 10.0


@pytest.fixture
def bus(broker: Mosquitto) -> Iterator[Bus]:
    with Bus(broker.port) as connected:
        yield connected


@pytest.fixture
def controller(broker: Mosquitto, bus: Bus) -> Iterator[Controller]:
    made = Controller(HOST, broker.port, TOPICS)
    made.connect(SOON)
    yield made
    made.close()


def nothing() -> None:
    """Stand for an agent that lives."""


def test_a_command_is_retained_until_it_is_cleared(controller: Controller, bus: Bus, broker: Mosquitto) -> None:
    topic = TOPICS.command("plan", "1")
    controller.send("plan", "1", {"sparsity": 0.5})
    assert bus.wait_topic(topic).json == {"status": "init", "args": {"sparsity": 0.5}, "requester": "demo"}
    assert retained(broker.port, topic) is not None
    controller.clear("plan", "1")
    bus.wait(lambda message: message.topic == topic and not message.payload)
    assert retained(broker.port, topic) is None


def test_every_message_is_handed_on_until_the_one_that_was_waited_for(controller: Controller, bus: Bus) -> None:
    for number in range(3):
        bus.send(TOPICS.event("epoch"), {"epoch": number}, retain=False)
    bus.send(TOPICS.health, b"", retain=False)
    bus.send(TOPICS.command("plan", "1"), {"status": "successful"}, retain=False)
    heard: list[Message] = []
    found = controller.hear_until(lambda message: message.topic == "cmd/plan/1", heard.append, SOON, nothing)
    assert found.document == {"status": "successful"}
    epochs = [Message("e/epoch", {"epoch": number}) for number in range(3)]
    assert heard == [*epochs, Message("status/health", {}), found]


def test_an_agent_that_does_not_answer_is_told(controller: Controller) -> None:
    with pytest.raises(AgentError, match=r"the agent did not answer within 0\.1 s") as caught:
        controller.hear_until(lambda _: True, lambda _: None, 0.1, nothing)
    assert caught.value.code is ErrorCode.TIMED_OUT


def test_an_agent_that_is_gone_is_noticed_at_once(controller: Controller) -> None:
    def gone() -> None:
        raise AgentError("gone")

    with pytest.raises(AgentError, match="gone"):
        controller.hear_until(lambda _: True, lambda _: None, 600, gone)


def test_a_broker_that_is_not_there_is_told() -> None:
    controller = Controller(HOST, free_port(), TOPICS)
    try:
        with pytest.raises(AgentError, match=r"the controller has no broker after 0\.2 s"):
            controller.connect(0.2)
    finally:
        controller.close()
