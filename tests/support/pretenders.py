"""Many pretended devices over one connection: they say that they are up, and answer commands as they are told to."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from reconvene_agent.core.topics import Topics, of_any_device
from support.brokers import HOST

Answers = Callable[[str, dict[str, Any]], Iterable[dict[str, Any]]]
"""Which states a device goes through on a request, without what the protocol adds."""

SUCCESS = {"status": "successful", "progress": 1.0, "result": {}}
EXECUTING = {"status": "executing", "step": "train", "progress": 0.5}
MODEL = {"version": "r0001-00000000", "accuracy": 0.9, "latency_ms": {"p50": 1.0, "p95": 2.0}, "bytes": 4096, "sparsity": 0.9}


def failure(code: str) -> dict[str, Any]:
    return {"status": "failed", "reason": "it is so", "error": {"code": code, "retryable": False, "detail": "it is so"}}


def success(_device: str, _request: dict[str, Any]) -> Iterable[dict[str, Any]]:
    return (EXECUTING, SUCCESS)


class Pretenders:
    """``count`` devices called p0, p1, …; ``received`` counts the requests that reached each."""

    def __init__(self, port: int, count: int, answers: Answers = success) -> None:
        self.names = [f"p{number}" for number in range(count)]
        self.received: Counter[str] = Counter()
        self.answers = answers
        self.news = threading.Condition()
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.max_inflight_messages_set(1000)
        ready = threading.Event()
        filters = Topics("te", "+").commands
        self._client.on_connect = lambda client, *_: client.subscribe(filters, 1)
        self._client.on_subscribe = lambda *_: ready.set()
        self._client.on_message = self._on_message
        self._client.connect(HOST, port)
        self._client.loop_start()
        assert ready.wait(10)
        for name in self.names:
            topics = Topics("te", name)
            self._say(topics.health, {"status": "up", "state": "idle", "version": "0", "time": 1767225600})
            last = self._say(topics.twin("model"), MODEL)
        last.wait_for_publish(30)

    def _say(self, topic: str, document: dict[str, Any]) -> paho.MQTTMessageInfo:
        return self._client.publish(topic, msgspec.json.encode(document), qos=1, retain=True)

    def _on_message(self, _client: Any, _data: Any, message: paho.MQTTMessage) -> None:
        found = of_any_device("te", message.topic)
        request = msgspec.json.decode(message.payload) if message.payload else {"rev": 0}
        if found is None or "rev" in request or not found[0].startswith("p"):
            return
        with self.news:
            self.received[found[0]] += 1
            self.news.notify_all()
        for rev, state in enumerate(self.answers(found[0], request), 1):
            self._say(message.topic, {**request, "rev": rev, "updated_at": 1767225600, **state})

    def wait_received(self, count: int, seconds: float = 30.0) -> None:
        """Wait until so many requests have arrived."""
        with self.news:
            assert self.news.wait_for(lambda: self.received.total() >= count, seconds), self.received

    def __enter__(self) -> Pretenders:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        self._client._reset_sockets()  # paho leaves that to the garbage collector
