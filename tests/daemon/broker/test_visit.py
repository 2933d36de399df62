from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from reconvene_agent.daemon.broker.link import Link
from reconvene_agent.daemon.broker.visit import Greeting, LostError, Visit
from support.brokers import HOST, Bus, Mosquitto, counterfeit, free_port


def link(port: int) -> Link:
    return Link(HOST, port, "visitor", "auto", 30, session_s=0)


@pytest.fixture(params=["5", "3.1.1"])
def visit(request: pytest.FixtureRequest, broker: Mosquitto) -> Iterator[Visit]:
    with Visit(link(broker.port), request.param, None, 10) as made:
        yield made


def test_a_visit(visit: Visit) -> None:
    assert visit.greeting() == Greeting(True, "Success", 0)
    assert [visit.subscribe("a/+"), visit.subscribe("b")] == ["", ""]
    assert visit.doing == "subscribing to b"
    assert [visit.publish("a/1"), visit.publish("c")] == ["", ""]
    assert visit.returned(["a/1"], 10) == {"a/1"}
    assert visit.returned(["a/1", "c"], 0.05) == {"a/1"}


def test_it_leaves_nothing_behind_and_no_will(broker: Mosquitto) -> None:
    with Bus(broker.port) as bus:
        with Visit(link(broker.port), "5", None, 10) as visit:
            visit.greeting()
            visit.publish("trace")
        bus.wait_topic("trace")
        with Visit(link(broker.port), "3.1.1", None, 10) as again:
            again.greeting()
            again.subscribe("later")
        bus.send("later", b"x", retain=False)
        with Visit(link(broker.port), "3.1.1", None, 10) as third:
            third.greeting()
            assert third.returned(["later"], 0.3) == set(), "no session was kept"
        assert [(message.topic, message.payload, message.retain) for message in bus.seen] == [
            ("trace", b"", False),
            ("later", b"x", False),
        ]


def test_nobody_there() -> None:
    with pytest.raises(LostError, match="Connection refused"):
        Visit(link(free_port()), "5", None, 1)


def test_nothing_said() -> None:
    def swallow(client: socket.socket) -> None:
        while client.recv(65536):
            pass

    with (
        counterfeit(swallow) as port,
        Visit(link(port), "5", None, 0.3) as visit,
        pytest.raises(LostError, match=r"nothing was said for 0\.3 s"),
    ):
        visit.greeting()


def test_hung_up() -> None:
    def hang_up(client: socket.socket) -> None:
        client.recv(65536)

    with (
        counterfeit(hang_up) as port,
        Visit(link(port), "5", None, 5) as visit,
        pytest.raises(LostError, match="the connection was lost"),
    ):
        visit.greeting()
