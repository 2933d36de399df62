"""An agent whose effects are noted instead of done, with a clock that is set by hand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec

from reconvene_agent.core import windows
from reconvene_agent.core.clock import Now
from reconvene_agent.core.config import AgentSection, BrokerSection, Config, WorkerSection
from reconvene_agent.core.device import Strain
from reconvene_agent.core.job import Command, Status, digest_of
from reconvene_agent.core.keys import PublicKey
from reconvene_agent.core.overlay import Overlay
from reconvene_agent.core.profile import Thermal
from reconvene_agent.core.protocol import Upward
from reconvene_agent.core.topics import Topics
from reconvene_agent.daemon import effects as do
from reconvene_agent.daemon import events
from reconvene_agent.daemon.agent import SETTLE_S, Agent
from reconvene_agent.daemon.board.pauses import LOOK_EVERY_S, Guard
from reconvene_agent.daemon.effects import Effect
from reconvene_agent.daemon.events import Event, WorkerEnded, WorkerSaid
from reconvene_agent.daemon.reporting.identity import Identity
from reconvene_agent.daemon.security.certificate import Certificate
from reconvene_agent.daemon.security.trust import Memory, Trust
from support.contract import Contract

TOPICS = Topics("te", "board-1")
IDENTITY = Identity(TOPICS, "0.1.0", 4711, "session-1", "boot-1")
WALL = 1767225600.0  # 2026-01-01
CONFIG = Config(
    agent=AgentSection(device_id="board-1", state_dir="/state"),
    broker=BrokerSection(url="mqtt://broker.example"),
    worker=WorkerSection(start_timeout_s=100.0, stall_timeout_s=200.0, stop_timeout_s=10.0, attempts=3),
)

CONTRACT = Contract(TOPICS, results=False)
JOB = "specialize/1"
THERMAL = Thermal(80.0, 70.0)

E = TypeVar("E", bound=Effect)


class AgentBench:
    """An agent on the bench. ``journal`` holds what its Save effects stored; whenever it looks, the board is as ``strain``.

    All that it publishes must be as the contract says.
    """

    def __init__(
        self,
        config: Config = CONFIG,
        known: Iterable[Command] = (),
        synchronized: bool = True,
        keys: dict[str, PublicKey] | None = None,
        certificate: Certificate | None = None,
    ) -> None:
        self.config = config
        self.now = Now(WALL, 1000.0, synchronized)
        self.journal = {command.label: command for command in known}
        self.strain = Strain(50.0, False)
        self.overlay = Overlay()
        """What, on disk, commands have changed of the settings."""
        self.ordered_by = ""
        """Who, on disk, has paused everything."""
        self.keys = {} if keys is None else keys
        self.certificate = certificate
        self.nonces: dict[str, float] = {}
        self.floor = float("-inf")
        self.agent = self._make()
        self.effects: list[Effect] = []
        """Everything since the last ``forget``, in order."""

    def _make(self) -> Agent:
        guard = Guard(THERMAL, tuple(map(windows.parse, self.config.worker.windows)), self.ordered_by)
        guard.feel(self.strain, self.now)
        trust = Trust(TOPICS.device, self.keys, Memory(dict(self.nonces), self.floor))
        known = list(self.journal.values())
        return Agent(IDENTITY, self.config, known, {}, self.now, guard, trust, self.certificate, self.overlay)

    # --- what happens ----------------------------------------------------------------------------------------------------

    def post(self, event: Event) -> list[Effect]:
        """Let the agent handle an event; return its effects."""
        effects = CONTRACT.effects(self.agent.handle(event, self.now))
        for effect in effects:
            if isinstance(effect, do.Save):
                self.journal.update({command.label: command for command in effect.commands})
            elif isinstance(effect, do.Forget):
                self.journal.pop(effect.command.label, None)
                if effect.nonce is not None:
                    self.nonces[effect.nonce.name] = effect.nonce.expires_at
            elif isinstance(effect, do.ForgetNonces):
                self.nonces = {name: time for name, time in self.nonces.items() if time > effect.until}
                self.floor = effect.until
            elif isinstance(effect, do.KeepPause):
                self.ordered_by = effect.ordered_by
        self.effects += effects
        return effects + (self.post(events.Looked(self.strain)) if do.Look() in effects else [])

    def fare(self, temperature_c: float | None = 50.0, under_voltage: bool | None = False) -> None:
        """Let the board fare so from now on, and the agent see it within seconds."""
        self.strain = Strain(temperature_c, under_voltage)
        self.wait(LOOK_EVERY_S)
        self.post(events.Looked(self.strain))

    def receive(self, topic: str, payload: bytes) -> list[Effect]:
        return self.post(events.Received(topic, payload, len(payload)))

    def command(self, label: str, args: dict[str, Any] | None = None, **fields: Any) -> list[Effect]:
        """Send a command, such as ``plan/1``."""
        message = {"status": "init", "args": {} if args is None else args, **fields}
        return self.receive(command_topic(label), msgspec.json.encode(message))

    def connect(self) -> list[Effect]:
        """Connect and wait until retained messages have settled."""
        return self.post(events.Connected("5")) + self.wait(SETTLE_S)

    def wait(self, seconds: float) -> list[Effect]:
        """Let time pass, then tick."""
        self.now = Now(self.now.wall + seconds, self.now.mono + seconds, self.now.synchronized)
        return self.post(events.Tick())

    def synchronize(self, wall: float | None = None) -> None:
        """Set the clock right."""
        self.now = Now(self.now.wall if wall is None else wall, self.now.mono, True)

    def say(self, message: Upward, label: str = "specialize/1") -> list[Effect]:
        """Let the worker of a command say something."""
        return self.post(WorkerSaid(key(label), message))

    def end(self, label: str = "specialize/1", returncode: int = 0, **facts: Any) -> list[Effect]:
        """Let the worker of a command end."""
        return self.post(WorkerEnded(key(label), returncode, facts.get("broken", ""), facts.get("oom", False), ""))

    def restart(self) -> list[Effect]:
        """Begin anew with what the journal holds, as after a crash."""
        self.agent = self._make()
        return self.post(events.Started())

    def forget(self) -> None:
        """Forget the effects so far."""
        self.effects.clear()

    # --- what was done ---------------------------------------------------------------------------------------------------

    def done(self, kind: type[E]) -> list[E]:
        """Return the effects of one kind."""
        return [effect for effect in self.effects if isinstance(effect, kind)]

    def states(self, label: str) -> list[dict[str, Any]]:
        """Return what was published as a command's state."""
        return states(self.effects, label)

    def statuses(self, label: str) -> list[str]:
        return [state["status"] for state in self.states(label)]

    def failure(self, label: str) -> str:
        """Return the error code that a command ended with."""
        last = self.states(label)[-1]
        assert last["status"] == "failed"
        assert last["reason"] == last["error"]["detail"]
        return str(last["error"]["code"])


def key(label: str) -> str:
    """Return the key of a command's worker."""
    op, _, command_id = label.partition("/")
    return Command(op, command_id, {}, "", 0.0, 0.0).key


def command_topic(label: str) -> str:
    return TOPICS.command(*label.split("/"))


def states(effects: Iterable[Effect], label: str) -> list[dict[str, Any]]:
    """Return what these effects publish as a command's state."""
    wanted = command_topic(label)
    found = [effect for effect in effects if isinstance(effect, do.Publish) and effect.topic == wanted and effect.payload]
    return [msgspec.json.decode(effect.payload) for effect in found]


def stored(status: Status = Status.EXECUTING, attempt: int = 1, label: str = JOB, **fields: Any) -> Command:
    """Return a command as a journal holds it."""
    op, _, command_id = label.partition("/")
    request = {"args": {}, **fields.pop("request", {})}
    return Command(op, command_id, request, digest_of(request), WALL, WALL, status, rev=2, attempt=attempt, **fields)
