"""Many agents in one process, for benchmarks/fleet.py: the real Agent, Outbox and Spool, over one loop for all connections.

Only what touches a board is played: the worker, the probes, and the journal, which every board writes to a disk of its own.
"""

from __future__ import annotations

import heapq
import itertools
import selectors
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from reconvene_agent.core.clock import Now
from reconvene_agent.core.config import AgentSection, BrokerSection, Config, TelemetrySection
from reconvene_agent.core.device import Strain
from reconvene_agent.core.job import Step
from reconvene_agent.core.messages import MAX_PAYLOAD
from reconvene_agent.core.profile import Thermal
from reconvene_agent.core.protocol import VERSION, Done, Progress, Ready
from reconvene_agent.core.topics import SERVICE, Topics
from reconvene_agent.daemon import effects as do
from reconvene_agent.daemon import events
from reconvene_agent.daemon.agent import Agent
from reconvene_agent.daemon.board.pauses import Guard
from reconvene_agent.daemon.broker.connection import MAX_PACKET, WILL_DELAY_S
from reconvene_agent.daemon.broker.link import SESSION_EXPIRY_S
from reconvene_agent.daemon.broker.outbox import Outbox
from reconvene_agent.daemon.effects import Effect
from reconvene_agent.daemon.events import Event, WorkerEnded, WorkerSaid
from reconvene_agent.daemon.probe.device import probe_device
from reconvene_agent.daemon.probe.sample import system_sample
from reconvene_agent.daemon.reporting import announce
from reconvene_agent.daemon.reporting.identity import Identity
from reconvene_agent.daemon.security.trust import Memory, Trust
from reconvene_agent.daemon.storage.spool import Spool

HOST = "127.0.0.1"
TELEMETRY_S = 10.0
CONNECTS_PER_S = 100
STEP_S = 0.3
KEEPALIVE_S = 60
LIMIT = 1 << 20
CALM = Strain(50.0, False)


class Loop:
    """One thread for all agents of this process: sockets that are ready, and what is due."""

    def __init__(self) -> None:
        self.selector = selectors.EpollSelector()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def at(self, moment: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._due, (moment, next(self._numbers), action))

    def run(self) -> None:
        while True:
            now = time.monotonic()
            while self._due and self._due[0][0] <= now:
                heapq.heappop(self._due)[2]()
            wait_s = max(0.0, self._due[0][0] - time.monotonic()) if self._due else 1.0
            for key, mask in self.selector.select(wait_s):
                key.data(mask)


class LoopedConnection:
    """What an Outbox publishes over, like the agent's own Connection but driven by the loop."""

    def __init__(self, loop: Loop, agent: SimulatedAgent, topics: Topics, will: bytes) -> None:
        self._loop = loop
        self._agent = agent
        self._filters = (topics.commands, topics.health)
        client = paho.Client(CallbackAPIVersion.VERSION2, f"{SERVICE}-{topics.device}", protocol=paho.MQTTv5)
        properties = Properties(PacketTypes.WILLMESSAGE)
        properties.WillDelayInterval = WILL_DELAY_S
        client.will_set(topics.health, will, qos=1, retain=True, properties=properties)
        client.on_connect = lambda *_: client.subscribe([(name, 1) for name in self._filters])
        client.on_subscribe = lambda *_: agent.connected()
        client.on_message = self._on_message
        client.on_publish = lambda _client, _data, mid, *_: agent.delivered(mid)
        client.on_socket_register_write = lambda *_: self._watch(selectors.EVENT_READ | selectors.EVENT_WRITE)
        client.on_socket_unregister_write = lambda *_: self._watch(selectors.EVENT_READ)
        self._client = client
        self._registered = False

    def connect(self, port: int) -> None:
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = SESSION_EXPIRY_S
        properties.MaximumPacketSize = MAX_PACKET
        self._client.connect(HOST, port, KEEPALIVE_S, clean_start=False, properties=properties)
        self._watch(selectors.EVENT_READ | (selectors.EVENT_WRITE if self._client.want_write() else 0))
        self._keep()

    def _keep(self) -> None:
        self._client.loop_misc()
        self._loop.at(time.monotonic() + 5.0, self._keep)

    def _watch(self, mask: int) -> None:
        socket = self._client.socket()
        if socket is None:
            return
        if self._registered:
            self._loop.selector.modify(socket, mask, self._ready)
        else:
            self._loop.selector.register(socket, mask, self._ready)
            self._registered = True

    def _ready(self, mask: int) -> None:
        if mask & selectors.EVENT_READ and self._client.loop_read() != paho.MQTT_ERR_SUCCESS:
            raise SystemExit("a simulated agent has lost its connection")
        if mask & selectors.EVENT_WRITE:
            self._client.loop_write()

    def publish(self, topic: str, payload: bytes, retain: bool) -> int | None:
        info = self._client.publish(topic, payload, qos=1, retain=retain)
        return info.mid if info.rc == paho.MQTT_ERR_SUCCESS else None

    def _on_message(self, _client: Any, _data: Any, message: paho.MQTTMessage) -> None:
        size = len(message.payload)
        self._agent.post(events.Received(message.topic, message.payload if size <= MAX_PAYLOAD else None, size))


class SimulatedAgent:
    """One agent, with a worker that walks through the steps without doing anything."""

    def __init__(self, loop: Loop, name: str, folder: Path, sampled: events.Sampled) -> None:
        self._loop = loop
        self._sampled = sampled
        topics = Topics("te", name)
        identity = Identity(topics, "0", 1, f"session-{name}", f"boot-{name}")
        config = Config(
            agent=AgentSection(device_id=name, state_dir="/nonexistent"),
            broker=BrokerSection(url=f"mqtt://{HOST}"),
            telemetry=TelemetrySection(interval_s=TELEMETRY_S, spool_bytes=LIMIT),
        )
        guard = Guard(Thermal(80.0, 70.0))
        guard.feel(CALM, _now())
        self._connection = LoopedConnection(loop, self, topics, announce.down(identity))
        self._spool = Spool(folder / f"{name}.db", identity.boot_id, config.telemetry)
        self._outbox = Outbox(self._connection, self._spool)  # type: ignore[arg-type]  # it publishes like a Connection
        self._agent = Agent(identity, config, [], {}, _now(), guard, Trust(name, {}, Memory()))
        self._inbox: deque[Event] = deque()
        self._records: list[do.Record] = []
        self._wake_at = float("inf")
        self._actions: dict[type[Effect], Callable[[Any], None]] = {
            do.Publish: lambda effect: self._outbox.publish(effect.topic, effect.payload, effect.retain, effect.token),
            do.Record: self._records.append,
            do.Launch: self._launch,
            do.Sample: lambda _: self.post(self._sampled),
            do.ReadRelease: lambda _: self.post(events.ReleaseRead(None)),
            do.Look: lambda _: self.post(events.Looked(CALM)),
        }

    def start(self, port: int) -> None:
        self._connection.connect(port)
        self.post(events.Started())

    def connected(self) -> None:
        self._outbox.begin()
        self.post(events.Connected("5"))

    def delivered(self, handle: int) -> None:
        self.post(events.Acknowledged(self._outbox.acknowledged(handle)))

    def post(self, event: Event) -> None:
        self._inbox.append(event)
        if len(self._inbox) > 1:
            return  # it is handled after the one that is being handled
        while self._inbox:
            self._handle(self._inbox[0])
            self._inbox.popleft()

    def _handle(self, event: Event) -> None:
        now = _now()
        for effect in self._agent.handle(event, now):
            action = self._actions.get(type(effect))
            if action is not None:
                action(effect)
        self._spool.append(self._records)
        self._records.clear()
        self._outbox.drain()
        due = self._agent.due(now)
        if due < self._wake_at:
            self._wake_at = due
            self._loop.at(due, self._tick)

    def _tick(self) -> None:
        self._wake_at = float("inf")
        self.post(events.Tick())

    def _launch(self, effect: do.Launch) -> None:
        key = effect.command.key
        steps: Iterable[Any] = (
            Ready(VERSION, "0", 1),
            *(Progress(step, share) for step in Step for share in (0.0, 1.0)),
            Done({"release": None}),
        )
        begin = time.monotonic() + STEP_S
        for number, message in enumerate(steps):
            self._loop.at(begin + number * STEP_S, lambda message=message: self.post(WorkerSaid(key, message)))
        end = begin + (2 * len(Step) + 2) * STEP_S
        self._loop.at(end, lambda: self.post(WorkerEnded(key, 0, "", False, "")))


def _now() -> Now:
    return Now(time.time(), time.monotonic(), True)


def main(port: int, first: int, count: int, folder: Path) -> None:
    loop = Loop()
    sampled = events.Sampled(system_sample(folder), probe_device(folder))
    begin = time.monotonic()
    for number in range(count):
        agent = SimulatedAgent(loop, f"sim-{first + number:05d}", folder, sampled)
        loop.at(begin + number / CONNECTS_PER_S, lambda agent=agent: agent.start(port))
    loop.run()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
