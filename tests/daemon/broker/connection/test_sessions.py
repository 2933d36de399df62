"""Whether the broker keeps what comes while we are away."""

from __future__ import annotations

import pytest

from support.brokers import Bus, Mosquitto
from support.ears import SUBSCRIPTIONS, Connect

TOPIC = SUBSCRIPTIONS[0].replace("+", "plan", 1).replace("+", "{}")


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
@pytest.mark.parametrize("session_s", [0, 600])
def test_what_comes_meanwhile_is_kept_for_those_who_have_a_session(
    protocol: str, session_s: int, connect: Connect, broker: Mosquitto, bus: Bus
) -> None:
    name = f"away-{protocol}-{session_s}"
    first, ear = connect(broker.port, client_id=name, protocol=protocol, session_s=session_s)
    ear.next("connected")
    first.close(2)
    bus.send(TOPIC.format(name), b"meanwhile", retain=False)
    _, again = connect(broker.port, client_id=name, protocol=protocol, session_s=session_s)
    heard: set[bytes] = set()
    while (event := again.next("connected", "received"))[0] != "connected":  # what was kept may come first
        heard.add(event[2])
    bus.send(TOPIC.format(f"{name}-after"), b"after", retain=False)
    while b"after" not in heard:
        heard.add(again.next("received")[2])
    assert heard == ({b"meanwhile", b"after"} if session_s else {b"after"})
