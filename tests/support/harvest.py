"""A subscriber who takes in many numbered records, quickly, and looks at them afterwards."""

from __future__ import annotations

import threading
import uuid
from typing import Any

import msgspec
from msgspec import Struct
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from support.brokers import HOST


class Gathered(Struct, frozen=True):
    """One record as it arrived."""

    topic: str
    payload: bytes

    @property
    def json(self) -> dict[str, Any]:
        document: dict[str, Any] = msgspec.json.decode(self.payload)
        return document

    @property
    def key(self) -> tuple[str, int]:
        """What tells a record from every other one."""
        document = self.json
        return document["boot_id"], document["seq"]


class Harvest:
    """Subscribes to ``filters``, in a session that outlives its connections, until it is over."""

    def __init__(self, port: int, *filters: str) -> None:
        self.records: list[Gathered] = []
        self._news = threading.Condition()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id=f"harvest-{uuid.uuid4()}", protocol=paho.MQTTv5)
        self._client.reconnect_delay_set(1, 1)
        ready = threading.Event()
        self._client.on_connect = lambda client, *_: client.subscribe([(name, 1) for name in filters])
        self._client.on_subscribe = lambda *_: ready.set()
        self._client.on_message = self._on_message
        session = Properties(PacketTypes.CONNECT)
        session.SessionExpiryInterval = 600
        self._client.connect(HOST, port, clean_start=False, properties=session)
        self._client.loop_start()
        assert ready.wait(10)

    def __enter__(self) -> Harvest:
        return self

    def __exit__(self, *_: object) -> None:
        forget = Properties(PacketTypes.DISCONNECT)
        forget.SessionExpiryInterval = 0
        self._client.disconnect(properties=forget)
        self._client.loop_stop()

    def _on_message(self, _client: Any, _data: Any, message: paho.MQTTMessage) -> None:
        with self._news:
            self.records.append(Gathered(message.topic, bytes(message.payload)))
            self._news.notify_all()

    def wait(self, count: int, seconds: float = 60.0) -> None:
        """Wait until so many messages have arrived, duplicates included."""
        with self._news:
            assert self._news.wait_for(lambda: len(self.records) >= count, seconds), f"only {len(self.records)} have arrived"

    def wait_for_all(self, count: int, seconds: float = 60.0) -> None:
        """Wait until so many different records have arrived."""
        # What is missing is missing among the messages looked at; while they are looked at, more arrive.
        arrived = 0
        while (missing := count - len(self.firsts(among=arrived))) > 0:
            arrived += missing
            self.wait(arrived, seconds)

    def firsts(self, topic: str = "", among: int | None = None) -> list[Gathered]:
        """Return the records without those that came again, in order of arrival: of one topic or all, among the first or all."""
        found: dict[tuple[str, int], Gathered] = {}
        for record in self.records[:among]:
            if not topic or record.topic == topic:
                found.setdefault(record.key, record)
        return list(found.values())

    def check(self) -> None:
        """Fail unless each stream came in order, and whatever came twice was the same twice."""
        contents: dict[tuple[str, int], Gathered] = {}
        for record in self.records:
            assert contents.setdefault(record.key, record) == record
        for topic in {record.topic for record in self.records}:
            numbers = [record.key[1] for record in self.firsts(topic)]
            assert numbers == sorted(numbers)
