from __future__ import annotations

import queue
import socket
import threading
from pathlib import Path

import pytest

from support.brokers import HOST, Mosquitto, counterfeit, pause
from support.ears import TOPIC, Connect
from support.waiting import until

PUBLISH, SUBSCRIBE = 3, 8
SUCCESS, QUOTA_EXCEEDED = 0x00, 0x97


def packet(client: socket.socket) -> tuple[int, bytes]:
    """Return the kind and the body of the next packet; 0 when the client has hung up."""
    head = client.recv(1)
    if not head:
        return 0, b""
    length = shift = 0
    while True:
        (byte,) = client.recv(1)
        length |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return head[0] >> 4, client.recv(length, socket.MSG_WAITALL) if length else b""


def packet_id(publication: bytes) -> bytes:
    end = 2 + int.from_bytes(publication[:2], "big")
    return publication[end : end + 2]


def test_no_more_is_under_way_than_the_broker_can_take(connect: Connect) -> None:
    begun: queue.SimpleQueue[int] = queue.SimpleQueue()
    acknowledge = threading.Event()
    most = 3

    def narrow(client: socket.socket) -> None:
        """Take three publications at a time, as its CONNACK says, and acknowledge them when told to."""
        packet(client)
        client.sendall(bytes([0x20, 6, 0, 0, 3, 0x21, 0, most]))
        _, body = packet(client)
        client.sendall(bytes([0x90, 5]) + body[:2] + bytes([0, 1, 1]))
        while (found := packet(client))[0]:
            kind, body = found
            if kind == PUBLISH:
                begun.put(1)
                acknowledge.wait(20)
                client.sendall(bytes([0x40, 2]) + packet_id(body))

    with counterfeit(narrow) as port:
        connection, ear = connect(port, protocol="5")
        ear.next("connected")
        handles = [connection.publish(f"{TOPIC}/m/system", b"x", retain=False) for _ in range(20)]
        assert connection._client is not None
        until(lambda: begun.qsize() == 1)
        assert connection._client._inflight_messages == most
        acknowledge.set()
        assert [ear.next("acknowledged")[1] for _ in handles] == handles


def test_a_publication_that_the_broker_has_no_room_for_is_told(connect: Connect) -> None:
    def full(client: socket.socket) -> None:
        packet(client)
        client.sendall(bytes([0x20, 3, 0, 0, 0]))
        _, body = packet(client)
        client.sendall(bytes([0x90, 5]) + body[:2] + bytes([0, 1, 1]))
        for reason in (QUOTA_EXCEEDED, SUCCESS):
            _, body = packet(client)
            client.sendall(bytes([0x40, 3]) + packet_id(body) + bytes([reason]))
        packet(client)

    with counterfeit(full) as port:
        connection, ear = connect(port, protocol="5")
        ear.next("connected")
        refused, taken = (connection.publish(f"{TOPIC}/m/{kind}", b"", retain=False) for kind in "xy")
        assert ear.next("acknowledged") == ("acknowledged", refused, "Quota exceeded")
        assert ear.next("acknowledged") == ("acknowledged", taken)


def test_a_broker_that_lets_us_publish_nothing_is_left(connect: Connect, tmp_path: Path) -> None:
    rights = tmp_path / "rights"
    rights.write_text(f"topic read #\ntopic write {TOPIC}/m/#\n")
    with Mosquitto(tmp_path / "strict", f"allow_anonymous true\nacl_file {rights}\nmax_queued_messages 1000\n") as broker:
        connection, ear = connect(broker.port)
        ear.next("connected")
        connection.publish(f"{TOPIC}/e/x", b"", retain=False)
        assert "does not let us publish" in ear.next("disconnected")[1]


def test_a_broker_that_confirms_nothing_any_more_is_left_and_tried_again(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reconvene_agent.daemon.broker.client.STALLED_AFTER_S", 0.2)
    monkeypatch.setattr("reconvene_agent.daemon.broker.connection.STALL_CHECK_S", 0.05)

    def lazy(client: socket.socket) -> None:
        """Confirm the first publication of a connection, and then none."""
        packet(client)
        client.sendall(bytes([0x20, 3, 0, 0, 0]))
        confirmed = False
        while (found := packet(client))[0]:
            kind, body = found
            if kind == SUBSCRIBE:
                client.sendall(bytes([0x90, 5]) + body[:2] + bytes([0, 1, 1]))
            elif kind == PUBLISH and not confirmed:
                confirmed = True
                client.sendall(bytes([0x40, 2]) + packet_id(body))

    with counterfeit(lazy) as port:
        connection, ear = connect(port, protocol="5")
        for _ in range(2):
            ear.next("connected")
            connection.publish(f"{TOPIC}/m/system", b"x", retain=False)
            ear.next("acknowledged")
            pause(0.4)
            assert ear.heard.empty(), "who publishes nothing waits for nothing"
            connection.publish(f"{TOPIC}/m/system", b"x", retain=False)
            assert ear.next("disconnected")[1] == f"{HOST}:{port} acknowledges nothing any more"
