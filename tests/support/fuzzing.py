"""Messages that nobody should send: made up, or valid ones spoilt. The same ones for the same seed."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from reconvene_agent.core.messages import MAX_PAYLOAD, OPERATIONS
from support.brokers import HOST
from support.daemons import TOPICS
from support.promises import args_of

LARGEST = 1 << 20
# A valid command would end the process, which is no failure, but the end of the test.
_OPS = [*(op for op in OPERATIONS if op != "restart"), "reboot", "ünknown", "x" * 128, "x" * 200, "$x", " "]

_NUMBERS = [
    b"1e999",
    b"-1e999",
    b"9" * 400,
    b"NaN",
    b"Infinity",
    b"-0",
    b"1e-999",
    b"18446744073709551616",
    b"0x1",
    b"true",
    b"null",
]
_DEPTHS = (60, 63, 64, 65, 1000, 100_000)
_SCRAPS = [
    *(
        b"\x00",
        b"\xff",
        b"\xc3",
        b"\xed\xa0\x80",
        b'"',
        b"{",
        b"}",
        b"[",
        b",",
        b":",
        b"\\",
        b"\\ud800",
        b"\xef\xbb\xbf",
        b"\xe2\x80\xae",
    ),
    *_NUMBERS,
]
_FIELDS = [
    "status",
    "args",
    "expires_at",
    "not_before",
    "timeout_s",
    "issued_at",
    "requester",
    "rev",
    "result",
    "error",
    "updated_at",
]


def documents(count: int) -> list[Any]:
    """Return what hypothesis finds interesting as JSON."""
    found: list[Any] = []
    scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
    keys = st.sampled_from(_FIELDS) | st.text(max_size=10)

    @settings(max_examples=count)
    @given(
        st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4), max_leaves=8)
    )
    def collect(document: Any) -> None:
        found.append(document)

    collect()
    return found


def _encoded(document: Any) -> bytes:
    try:
        return msgspec.json.encode(document)
    except (OverflowError, UnicodeEncodeError):
        return repr(document).encode(errors="surrogatepass")


class Fuzzer:
    """An endless source of topics and payloads."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._documents = documents(200)
        self._made = 0

    def messages(self, count: int) -> Iterator[tuple[str, bytes]]:
        """Return so many messages, nearly all of them small."""
        for _ in range(count):
            self._made += 1
            yield self._topic(), self._payload()

    def _topic(self) -> str:
        dice = self._random
        kind = dice.random()
        if kind < 0.05:
            return TOPICS.health
        if kind < 0.08:
            return dice.choice(
                [TOPICS.service, TOPICS.capability("plan"), TOPICS.measurement("x"), f"{TOPICS.service}/cmd//", "x/y"]
            )
        number = self._made if dice.random() < 0.5 else dice.randrange(20)
        return f"{TOPICS.service}/cmd/{dice.choice(_OPS)}/{dice.choice(['', '', '', '', 'ü', '.', ' '])}{number}"

    def _payload(self) -> bytes:
        dice = self._random
        if dice.random() < 0.004:
            return self._large(dice.choice([*(MAX_PAYLOAD - 500,) * 5, MAX_PAYLOAD, MAX_PAYLOAD + 1, LARGEST]))
        if dice.random() < 0.2:
            return _encoded(dice.choice(self._documents))
        return self._spoilt(self._valid())

    def _valid(self) -> bytes:
        dice = self._random
        message: dict[str, Any] = {"status": "init", "args": args_of(dice.choice([op for op in _OPS if op in OPERATIONS]))}
        if dice.random() < 0.1:
            message |= {"not_before": 4e9} if dice.random() < 0.5 else {"expires_at": 4e9, "timeout_s": 9}
        if dice.random() < 0.4:
            message[dice.choice(_FIELDS)] = dice.choice(self._documents)
        return _encoded(message)

    def _spoilt(self, raw: bytes) -> bytes:
        dice = self._random
        at = dice.randrange(len(raw) + 1)
        kind = dice.randrange(8)
        if kind == 0:
            return raw[:at]
        if kind == 1:
            return raw[:at] + dice.choice(_SCRAPS) + raw[at:]
        if kind == 2:
            return raw[:at] + dice.randbytes(dice.randrange(1, 9)) + raw[at + 4 :]
        if kind == 3:
            return raw[:-1] + b',"args":' + dice.choice([*_NUMBERS, _encoded(dice.choice(self._documents))]) + b"}"
        if kind == 4:
            return raw[:-1] + f',"{dice.choice(_FIELDS)}":'.encode() + dice.choice(_NUMBERS) + b"}"
        if kind == 5 and dice.random() < 0.1:
            depth = dice.choice(_DEPTHS[: 5 if dice.random() < 0.9 else 6])
            return raw[:-1] + b',"deep":' + b"[" * depth + b"]" * (depth - dice.randrange(2)) + b"}"
        if kind == 6 and dice.random() < 0.1:
            return raw.replace(b'"init"', b'"' + b"x" * dice.randrange(3000) + b'"')
        return raw

    def _large(self, size: int) -> bytes:
        """Return a message of about this size, which takes as much memory as it can when it is read."""
        begin = b'{"status":"init","args":{},"note":'
        room = size - len(begin) - 3
        filling = self._random.choice(
            [
                b'"' + b"x" * room + b'"',
                b"[" + b"[]," * (room // 3 - 1) + b"0]",
                b"{" + b'"":{},' * (room // 6 - 1) + b'"":0}',
                b"\x00" * room,
            ]
        )
        return begin + filling + b"}"


def _length(size: int) -> bytes:
    """Encode a length as MQTT does."""
    encoded = bytearray()
    while True:
        size, low = divmod(size, 128)
        encoded.append(low | (128 if size else 0))
        if not size:
            return bytes(encoded)


def flood(port: int, messages: Iterable[tuple[str, bytes]], retain: bool = False) -> None:
    """Publish at QoS 1 as fast as the broker takes it, and wait until it has acknowledged all. The client is played by hand."""
    with socket.create_connection((HOST, port), 20) as client:
        body = b"\x00\x04MQTT\x04\x02\x00\x3c" + b"\x00\x04fuzz"
        client.sendall(b"\x10" + _length(len(body)) + body)
        assert client.recv(4) == b"\x20\x02\x00\x00"
        left = threading.Semaphore(0)

        def count() -> None:
            held = b""
            while chunk := client.recv(65536):
                held += chunk
                for _ in range(len(held) // 4):
                    left.release()
                held = held[len(held) // 4 * 4 :]

        counter = threading.Thread(target=count, daemon=True)
        counter.start()
        sent = 0
        for topic, payload in messages:
            sent += 1
            name = topic.encode()
            body = len(name).to_bytes(2, "big") + name + (sent % 65535 + 1).to_bytes(2, "big") + payload
            client.sendall((b"\x33" if retain else b"\x32") + _length(len(body)) + body)
        for _ in range(sent):
            assert left.acquire(timeout=60)
        client.sendall(b"\xe0\x00")
        counter.join(10)
