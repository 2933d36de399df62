from __future__ import annotations

import queue
import socket
import threading
from pathlib import Path

from support.brokers import Mosquitto, counterfeit
from support.ears import TOPIC, Connect
from support.waiting import until

PUBLISH = 3


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
                end = 2 + int.from_bytes(body[:2], "big")
                begun.put(1)
                acknowledge.wait(20)
                client.sendall(bytes([0x40, 2]) + body[end : end + 2])

    with counterfeit(narrow) as port:
        connection, ear = connect(port, protocol="5")
        ear.next("connected")
        handles = [connection.publish(f"{TOPIC}/m/system", b"x", retain=False) for _ in range(20)]
        assert connection._client is not None
        until(lambda: begun.qsize() == 1)
        assert connection._client._inflight_messages == most
        acknowledge.set()
        assert [ear.next("acknowledged")[1] for _ in handles] == handles


def test_a_publication_that_the_broker_refuses_is_told(connect: Connect, tmp_path: Path) -> None:
    rights = tmp_path / "rights"
    rights.write_text(f"topic read #\ntopic write {TOPIC}/m/#\n")
    with Mosquitto(tmp_path / "strict", f"allow_anonymous true\nacl_file {rights}\nmax_queued_messages 1000\n") as broker:
        connection, ear = connect(broker.port)
        ear.next("connected")
        refused, taken = (connection.publish(f"{TOPIC}/{kind}/x", b"", retain=False) for kind in "em")
        assert ear.next("acknowledged") == ("acknowledged", refused, "Not authorized")
        assert ear.next("acknowledged") == ("acknowledged", taken)
