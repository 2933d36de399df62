"""What stands around the pure agent: a broker that keeps what is retained, a journal, a worker, a shelf of releases.

They hold the agent to its word: the journal before the act and the act before the word, one worker at a time, one end for each
command, and nothing done again that has ended. A new kind of effect must be given a meaning in ``Surroundings.carry_out``.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from reconvene_agent.core import windows
from reconvene_agent.core.clock import Now
from reconvene_agent.core.config import Config
from reconvene_agent.core.device import Strain
from reconvene_agent.core.errors import ErrorCode
from reconvene_agent.core.job import Command, Status
from reconvene_agent.core.overlay import Overlay, Trial
from reconvene_agent.core.protocol import Done, Failed, Suspended, Upward
from reconvene_agent.core.shelf import Switch
from reconvene_agent.daemon import effects as do
from reconvene_agent.daemon import events
from reconvene_agent.daemon.agent import SETTLE_S, Agent
from reconvene_agent.daemon.board.pauses import CALM_S, LOOK_EVERY_S, Guard
from reconvene_agent.daemon.events import Event, WorkerEnded, WorkerSaid
from reconvene_agent.daemon.security.trust import Memory, Trust
from support.agents import CONFIG, CONTRACT, IDENTITY, THERMAL, TOPICS, WALL, command_topic
from support.promises import HARMLESS, args_of, following, started_on_trial


class Crash(Exception):  # noqa: N818 - it is what happens, not an error of the test
    """The agent's process ends in the middle of its effects."""


class Surroundings:
    """The world of one agent, which crashes after ``cut`` more effects, if that is set, and then starts anew."""

    def __init__(self, config: Config = CONFIG) -> None:
        super().__init__()
        self.config = config
        self.now = Now(WALL, 1000.0, True)
        self.journal: dict[str, Command] = {}
        self.unsaved: dict[str, Command] = {}
        self.retained: dict[str, bytes] = {}
        self.underway: list[tuple[str, bytes]] = []
        self.tokens: list[str] = []
        self.accepted: set[str] = set()
        self.cleared: set[str] = set()
        self.excused: set[str] = set()
        """Commands whose newest state was lost by a crash on a full disk: no journal can know it."""
        self.published: dict[str, int] = {}
        """The newest revision of each command that was published."""
        self.connected = False
        self.full = False
        self.worker: str | None = None
        self.asked = ""
        """How the worker was asked to stop, if it was; or that it has finished."""
        self.switches: dict[str, str] = {}
        """By what name each command has had another release serve."""
        self.switching: list[str] = []
        self.restarts: set[str] = set()
        """The commands that have had their restart."""
        self.overlay = Overlay()
        self.switches_at_once = True
        self.cut: int | None = None
        self.carried_out = 0
        self.quit = False
        self.strain = Strain(50.0, False)
        self.ordered_by = ""
        self.start()

    def start(self) -> None:
        """Start the agent on what the journal holds."""
        self.excused |= self.unsaved.keys()
        self.unsaved.clear()
        self.underway.clear()
        self.tokens.clear()
        self.switching.clear()
        self.connected, self.worker, self.quit = False, None, False
        self.overlay = started_on_trial(self.overlay)
        guard = Guard(THERMAL, tuple(map(windows.parse, self.config.worker.windows)), self.ordered_by)
        guard.feel(self.strain, self.now)
        trust = Trust(TOPICS.device, {}, Memory())
        known = list(self.journal.values())
        self.agent = Agent(IDENTITY, self.config, known, {}, self.now, guard, trust, overlay=self.overlay)
        self.post(events.Started())

    def post(self, event: Event) -> None:
        """Let the agent handle an event and carry out what it wants, or crash in the middle of that."""
        pending = [event]
        try:
            while pending:
                pending += self.carry_out(CONTRACT.effects(self.agent.handle(pending.pop(0), self.now)))
        except Crash:
            self.start()
            return
        if self.quit:
            assert self.worker is None, "it leaves no worker behind"
            self.start()

    def carry_out(self, effects: list[do.Effect]) -> list[Event]:
        """Do what the agent wants done; return what comes of it."""
        following: list[Event] = []
        for effect in effects:
            if isinstance(effect, HARMLESS):
                continue
            self.carried_out += 1
            if self.cut is not None:
                self.cut -= 1
                if self.cut < 0:
                    self.cut = None
                    raise Crash
            if isinstance(effect, do.Save):
                if self.full and effect.first:
                    following.append(events.JournalFailed(effect.command.label, "full"))
                    break
                for command in effect.commands:
                    self.save(command, effect.first)
            elif isinstance(effect, do.Forget):
                self.forget(effect.command.label)
            elif isinstance(effect, do.Launch):
                self.launch(effect.command)
            elif isinstance(effect, do.Publish):
                self.publish(effect)
            elif isinstance(effect, do.AskWorker):
                self.asked = effect.mode
            elif isinstance(effect, do.EndWorker):
                assert self.worker is not None, "there is somebody to be ended"
            elif isinstance(effect, do.Look):
                following.append(events.Looked(self.strain))
            elif isinstance(effect, do.KeepPause):
                self.ordered_by = effect.ordered_by
            elif isinstance(effect, do.SwitchRelease):
                self.switch(effect)
                following += self.switched() if self.switches_at_once else []
            elif isinstance(effect, (do.UpdateSettings, do.SettleSettings, do.AskRestart, do.ReadLog)):
                following.append(self.renew(effect))
            elif isinstance(effect, do.Quit):
                self.quit = True
            else:
                pytest.fail(f"{type(effect).__name__} is new: say in tests/support/surroundings.py what it does")
        return following

    # --- the disk --------------------------------------------------------------------------------------------------------

    def newest(self, label: str) -> Command | None:
        return self.unsaved.get(label) or self.journal.get(label)

    def save(self, command: Command, first: bool) -> None:
        before = self.newest(command.label)
        if before is not None and command.label not in self.excused:
            assert command.status is before.status or command.status in following(before)
            assert command.rev >= before.rev
            assert command.request == before.request
            assert not before.status.terminal or (command.result, command.error) == (before.result, before.error)
        if first:
            assert before is None, "what is new was not there before"
        self.accepted.add(command.label)
        if self.full:
            self.unsaved[command.label] = command
        else:
            self.unsaved.pop(command.label, None)
            self.journal[command.label] = command

    def forget(self, label: str) -> None:
        known = self.newest(label)
        assert known is None or (known.status.terminal and (known.acknowledged or label in self.cleared)), "it is over and known"
        self.journal.pop(label, None)
        self.unsaved.pop(label, None)
        self.accepted.discard(label)
        self.switches.pop(label, None)
        self.restarts.discard(label)
        self.published.pop(label, None)

    def fill_disk(self, full: bool) -> None:
        self.full = full
        if not full:
            self.journal |= self.unsaved
            self.unsaved.clear()

    def switch(self, effect: do.SwitchRelease) -> None:
        known = self.newest(effect.label)
        assert known is not None, "the journal comes before the act"
        assert known.status is Status.EXECUTING
        assert self.switches.setdefault(effect.label, effect.by) == effect.by, "a command does it once"
        self.switching.append(effect.label)

    def switched(self) -> list[Event]:
        """Tell that the releases were switched that are to be."""
        labels, self.switching = self.switching, []
        return [events.ReleaseSwitched(label, Switch("r0002-00000002", "r0001-00000001")) for label in labels]

    # --- the process -----------------------------------------------------------------------------------------------------

    def renew(self, effect: do.UpdateSettings | do.SettleSettings | do.AskRestart | do.ReadLog) -> Event:
        """Do what concerns the process: its settings, its restart, its log; return what comes of it."""
        if isinstance(effect, do.SettleSettings):
            self.overlay = self.overlay.settled(effect.held, effect.detail)
            return events.SettingsSettled(self.overlay)
        known = self.newest(effect.label)
        assert known is not None, "the journal comes before the act"
        assert known.status is Status.EXECUTING
        if isinstance(effect, do.ReadLog):
            return events.LogRead(effect.label, [[{"time": "2026-01-01T00:00:00.000Z", "level": "info", "text": "a line"}]])
        if isinstance(effect, do.AskRestart):
            assert effect.label not in self.restarts, "a command restarts it once"
            self.restarts.add(effect.label)
            return events.RestartAsked(effect.label)
        assert self.overlay.last is None or self.overlay.last.by != effect.by, "what has ended is not tried again"
        trial = Trial(effect.by, self.overlay.settings, False, effect.trial_s, sorted(effect.changes))
        self.overlay = Overlay({"telemetry": {"interval_s": 5}}, trial, self.overlay.last)
        return events.SettingsUpdated(effect.label, self.overlay)

    # --- the worker ------------------------------------------------------------------------------------------------------

    def launch(self, command: Command) -> None:
        assert self.worker is None, "one worker at a time"
        known = self.newest(command.label)
        assert known == command, "the journal comes before the act"
        assert command.status is Status.EXECUTING, "what has ended does not start again"
        assert command.doomed is None, "nor what was being stopped for good"
        assert 1 <= command.attempt <= self.config.worker.attempts
        assert not self.ordered_by, "nothing starts while it is paused on command"
        assert self.strain.temperature_c is None or self.strain.temperature_c <= THERMAL.hot_c, "nor on a hot board"
        self.worker, self.asked = command.key, ""

    def say(self, word: Upward) -> None:
        """Let the worker say something."""
        assert self.worker is not None
        if isinstance(word, (Done, Failed, Suspended)):
            self.asked = self.asked or "finished"
        self.post(WorkerSaid(self.worker, word))

    def end(self, returncode: int = 0, broken: str = "", out_of_memory: bool = False) -> None:
        """Let the worker end."""
        ended, self.worker = self.worker, None
        assert ended is not None
        self.post(WorkerEnded(ended, returncode, broken, out_of_memory, ""))

    def work(self) -> None:
        """Let the worker do what it was asked for, or else finish its work, and leave."""
        words = {"cancel": Failed(ErrorCode.CANCELED, "canceled on request"), "suspend": Suspended()}
        self.say(words.get(self.asked, Done({"x": 1})))
        if self.worker is not None:
            self.end()

    # --- the broker ------------------------------------------------------------------------------------------------------

    def publish(self, effect: do.Publish) -> None:
        command = TOPICS.parse_command(effect.topic)
        if command is not None and effect.payload:
            label = f"{command.op}/{command.id}"
            known, state = self.newest(label), msgspec.json.decode(effect.payload)
            refusal = state["status"] == "failed" and (known is None or not effect.retain)
            if not refusal:
                assert known is not None, "the journal comes before the word"
                assert state["status"] == known.status.value, "the journal comes before the word"
                assert label in self.excused or state["rev"] >= self.published.get(label, 0)
                self.published[label] = state["rev"]
        if not self.connected:
            return
        if effect.token:
            self.tokens.append(effect.token)
        if effect.retain:
            self.retain(effect.topic, effect.payload)
            if command is not None:
                (self.cleared.discard if effect.payload else self.cleared.add)(f"{command.op}/{command.id}")
        if command is not None or effect.topic == TOPICS.health:
            self.underway.append((effect.topic, effect.payload))

    def retain(self, topic: str, payload: bytes) -> None:
        if payload:
            self.retained[topic] = payload
        else:
            self.retained.pop(topic, None)

    def send(self, topic: str, payload: bytes) -> None:
        """Publish, retained, what somebody else has to say."""
        self.retain(topic, payload)
        if self.connected:
            self.underway.append((topic, payload))

    def command(self, label: str, args: dict[str, Any] | None = None, **fields: Any) -> None:
        """Send a command; it is under way then."""
        self.cleared.discard(label)
        args = args_of(label.split("/", maxsplit=1)[0]) if args is None else args
        self.send(command_topic(label), msgspec.json.encode({"status": "init", "args": args, **fields}))

    def deliver(self) -> None:
        topic, payload = self.underway.pop(0)
        self.post(events.Received(topic, payload, len(payload)))

    def connect(self, settle: bool = True) -> None:
        """Connect, unless there is a connection; what is retained comes then."""
        if not self.connected:
            self.connected = True
            self.post(events.Connected("5"))
            if self.connected:
                self.underway += [(topic, payload) for topic, payload in self.retained.items() if topic.count("/") >= 6]
        if settle:
            self.settle()

    def disconnect(self) -> None:
        self.connected = False
        self.underway.clear()
        self.tokens.clear()
        self.post(events.Disconnected("gone", 1.0))

    def acknowledge(self) -> None:
        self.post(events.Acknowledged(self.tokens.pop(0)))

    def settle(self) -> None:
        """Let everything arrive that is under way."""
        for _ in range(500):
            if not self.underway:
                break
            self.deliver()
        assert not self.underway, "messages and answers must come to an end"
        self.pass_time(SETTLE_S)

    # --- the board -------------------------------------------------------------------------------------------------------

    def pass_time(self, seconds: float) -> None:
        self.now = Now(self.now.wall + seconds, self.now.mono + seconds, self.now.synchronized)
        self.post(events.Tick())

    def fare(self, temperature: float | None = 50.0, under_voltage: bool | None = False) -> None:
        """Let the board fare so from now on, and the agent see it."""
        self.strain = Strain(temperature, under_voltage)
        self.post(events.Looked(self.strain))

    # --- the end ---------------------------------------------------------------------------------------------------------

    def wind_up(self) -> None:
        """Let everything come to its end, and see that each command accepted has one, which the broker knows."""
        self.cut = None
        self.fill_disk(False)
        self.now = Now(self.now.wall, self.now.mono, True)
        self.fare()
        self.pass_time(CALM_S)
        for _ in range(len(self.accepted) + len(self.underway) + self.config.worker.attempts + 2):
            self.connect()
            for event in self.switched():
                self.post(event)
            self.post(events.PauseAsked(1, False))
            if self.worker is not None:
                self.work()
            self.pass_time(LOOK_EVERY_S)
            self.pass_time(700.0)
        self.connect()
        while self.tokens:
            self.acknowledge()
        self.settle()
        for label in self.accepted & self.journal.keys():
            command = self.journal[label]
            assert command.status.terminal, f"{label} is still {command.status.value}"
            assert (command.error is None) == (command.status is Status.SUCCESSFUL)
            shown = self.retained.get(command_topic(label))
            if label not in self.cleared | self.excused:
                assert shown is not None, f"{label} has been lost"
                assert msgspec.json.decode(shown)["status"] == command.status.value
        assert self.accepted - self.excused <= self.journal.keys()
        assert self.worker is None

    def shown(self, label: str) -> dict[str, Any]:
        """Return what the broker has of a command."""
        state: dict[str, Any] = msgspec.json.decode(self.retained[command_topic(label)])
        return state
