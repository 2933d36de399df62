"""The agent under any order of messages, words of workers, lost connections, full disks, stops and crashes.

Around the real agent stand a broker that keeps what is retained, a journal that survives, and a worker that may do anything.
"""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from reconvene_agent.core import windows
from reconvene_agent.core.clock import Now
from reconvene_agent.core.errors import ErrorCode
from reconvene_agent.core.job import TRANSITIONS, Command, Status, Step
from reconvene_agent.core.messages import OPERATIONS
from reconvene_agent.core.protocol import Done, Failed, Happening, Progress, Ready, Suspended
from reconvene_agent.daemon import effects as do
from reconvene_agent.daemon import events
from reconvene_agent.daemon.agent import SETTLE_S, Agent
from reconvene_agent.daemon.events import Event
from reconvene_agent.daemon.pauses import CALM_S, Guard
from reconvene_agent.daemon.probe.strain import Strain
from reconvene_agent.daemon.running import REVISIONS_AHEAD
from reconvene_agent.daemon.worker_process import WorkerEnded, WorkerSaid
from support.agents import CONFIG, CONTRACT, IDENTITY, THERMAL, TOPICS, WALL, key
from support.values import EPOCH

LABELS = ["specialize/1", "specialize/2", "plan/1", "ping/1", "cancel/1", "cancel/2", "other/1", "pause/1", "resume/1", "pause/2"]
WORDS = [
    *(Ready(1, "", 1), Suspended()),
    *(Progress(step, 0.5) for step in (Step.PLAN, Step.TRAIN)),
    *(Happening("epoch", EPOCH), Done({"x": 1})),
    *(Failed(code, "why") for code in (ErrorCode.NO_DATA, ErrorCode.CANCELED)),
]

offsets = st.none() | st.sampled_from([-60.0, 1.0, 60.0, 600.0])


def following(command: Command) -> frozenset[Status]:
    """Return the states that may come next; what is done at once is not journaled in between."""
    steps = TRANSITIONS[command.status]
    return steps if OPERATIONS[command.op].is_job else steps.union(*(TRANSITIONS[step] for step in steps))


class Crash(Exception):  # noqa: N818 - it is what happens, not an error of the test
    """The agent's process ends in the middle of its effects."""


class World(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
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
        self.connected = False
        self.full = False
        self.worker: str | None = None
        self.asked = False
        """The worker was asked to stop, or has finished."""
        self.cut: int | None = None
        self.quit = False
        self.strain = Strain(50.0, False)
        self.ordered_by = ""
        self.start()

    # --- the agent's surroundings ----------------------------------------------------------------------------------------

    def start(self) -> None:
        self.excused |= self.unsaved.keys()
        self.unsaved.clear()
        self.underway.clear()
        self.tokens.clear()
        self.connected, self.worker, self.quit = False, None, False
        guard = Guard(THERMAL, (windows.parse("00:00-00:10"), windows.parse("00:20-23:50")), self.ordered_by)
        guard.feel(self.strain, self.now)
        self.agent = Agent(IDENTITY, CONFIG, list(self.journal.values()), {}, self.now, guard)
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
        following: list[Event] = []
        for effect in effects:
            if self.cut is not None:
                self.cut -= 1
                if self.cut < 0:
                    self.cut = None
                    raise Crash
            if isinstance(effect, do.Save):
                if self.full and effect.first:
                    following.append(events.JournalFailed(effect.command.label, "full"))
                    break
                self.save(effect.command, effect.first)
            elif isinstance(effect, do.Forget):
                self.journal.pop(effect.command.label, None)
            elif isinstance(effect, do.Launch):
                self.launch(effect.command)
            elif isinstance(effect, do.Publish):
                self.publish(effect)
            elif isinstance(effect, do.AskWorker):
                self.asked = True
            elif isinstance(effect, do.EndWorker):
                assert self.worker is not None, "there is somebody to be ended"
            elif isinstance(effect, do.Look):
                following.append(events.Looked(self.strain))
            elif isinstance(effect, do.KeepPause):
                self.ordered_by = effect.ordered_by
            elif isinstance(effect, do.Quit):
                self.quit = True
        return following

    def newest(self, label: str) -> Command | None:
        return self.unsaved.get(label) or self.journal.get(label)

    def save(self, command: Command, first: bool) -> None:
        before = self.newest(command.label)
        if before is not None and command.label not in self.excused:
            assert command.status is before.status or command.status in following(before)
            assert command.rev >= before.rev
            assert command.request == before.request
        if first:
            assert before is None, "what is new was not there before"
        self.accepted.add(command.label)
        if self.full:
            self.unsaved[command.label] = command
        else:
            self.unsaved.pop(command.label, None)
            self.journal[command.label] = command

    def launch(self, command: Command) -> None:
        assert self.worker is None, "one worker at a time"
        known = self.newest(command.label)
        assert known == command, "the journal comes before the act"
        assert command.status is Status.EXECUTING
        assert 1 <= command.attempt <= CONFIG.worker.attempts
        assert not self.ordered_by, "nothing starts while it is paused on command"
        assert self.strain.temperature_c is None or self.strain.temperature_c <= THERMAL.hot_c, "nor on a hot board"
        self.worker, self.asked = command.key, False

    def publish(self, effect: do.Publish) -> None:
        command = TOPICS.parse_command(effect.topic)
        if command is not None and effect.payload:
            label = f"{command.op}/{command.id}"
            known, state = self.newest(label), msgspec.json.decode(effect.payload)
            refusal = state["status"] == "failed" and (known is None or not effect.retain)
            assert refusal or (known is not None and state["status"] == known.status.value), "the journal comes before the word"
        if not self.connected:
            return
        if effect.token:
            self.tokens.append(effect.token)
        if effect.retain:
            self.retain(effect.topic, effect.payload)
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

    def deliver(self) -> None:
        topic, payload = self.underway.pop(0)
        self.post(events.Received(topic, payload, len(payload)))

    def pass_time(self, seconds: float) -> None:
        self.now = Now(self.now.wall + seconds, self.now.mono + seconds, self.now.synchronized)
        self.post(events.Tick())

    # --- what can happen -------------------------------------------------------------------------------------------------

    @rule(
        label=st.sampled_from(LABELS),
        args=st.sampled_from([{}, {}, {"id": "1"}, {"sparsity": 0.5}, {"nonsense": 1}]),
        expires=offsets,
        begins=offsets,
        timeout=st.none() | st.sampled_from([5.0, 100.0]),
    )
    def a_command_is_sent(
        self, label: str, args: dict[str, Any], expires: float | None, begins: float | None, timeout: float | None
    ) -> None:
        message: dict[str, Any] = {"status": "init", "args": args}
        for name, offset in (("expires_at", expires), ("not_before", begins)):
            if offset is not None:
                message[name] = self.now.wall + offset
        if timeout is not None:
            message["timeout_s"] = timeout
        self.cleared.discard(label)
        self.send(TOPICS.command(*label.split("/")), msgspec.json.encode(message))

    @rule(label=st.sampled_from(LABELS[:3]))
    def a_job_is_sent_and_arrives(self, label: str) -> None:
        if not self.connected:
            self.the_connection_begins(False)
        self.a_command_is_sent(label, {}, None, None, None)
        self.settle()

    @rule(label=st.sampled_from(LABELS), payload=st.sampled_from([b"", b"{", b"[]", b"a state of somebody else's"]))
    def something_odd_is_sent(self, label: str, payload: bytes) -> None:
        if not payload:
            self.cleared.add(label)
        elif payload.startswith(b"a state"):
            # Newer than any of ours; an older one cannot be told from an echo of our own.
            ours = self.journal[label].rev if label in self.journal else 0
            payload = b'{"status":"executing","rev":%d}' % (ours + 2 * REVISIONS_AHEAD)
        self.send(TOPICS.command(*label.split("/")), payload)

    @rule()
    def somebody_says_that_we_are_down(self) -> None:
        self.send(TOPICS.health, b'{"status":"down","session":"another"}')

    @precondition(lambda self: self.underway)
    @rule(count=st.integers(1, 5))
    def messages_arrive(self, count: int) -> None:
        for _ in range(min(count, len(self.underway))):
            if self.underway:
                self.deliver()

    @precondition(lambda self: self.tokens)
    @rule()
    def the_broker_acknowledges(self) -> None:
        self.post(events.Acknowledged(self.tokens.pop(0)))

    @precondition(lambda self: not self.connected)
    @rule(settle=st.booleans())
    def the_connection_begins(self, settle: bool) -> None:
        self.connected = True
        self.post(events.Connected("5"))
        if self.connected:
            self.underway += [(topic, payload) for topic, payload in self.retained.items() if topic.count("/") >= 6]
        if settle:
            self.settle()

    @precondition(lambda self: self.connected)
    @rule()
    def the_connection_is_lost(self) -> None:
        self.connected = False
        self.underway.clear()
        self.tokens.clear()
        self.post(events.Disconnected("gone", 1.0))

    @precondition(lambda self: self.worker)
    @rule(word=st.sampled_from(WORDS))
    def the_worker_speaks(self, word: Any) -> None:
        assert self.worker is not None
        self.asked |= isinstance(word, (Done, Failed, Suspended))
        self.post(WorkerSaid(self.worker, word))

    @precondition(lambda self: self.worker)
    @rule(returncode=st.sampled_from([0, 1, -9, -11, 143]), broken=st.sampled_from(["", "", "rubbish"]), memory=st.booleans())
    def the_worker_ends(self, returncode: int, broken: str, memory: bool = False) -> None:
        ended, self.worker = self.worker, None
        assert ended is not None
        self.post(WorkerEnded(ended, returncode, broken, memory and returncode == -9, ""))

    @precondition(lambda self: self.worker)
    @rule()
    def the_worker_leaves_a_checkpoint(self) -> None:
        self.the_worker_speaks(Suspended())
        if self.worker is not None:
            self.the_worker_ends(0, "")

    @precondition(lambda self: self.worker)
    @rule(limit=st.sampled_from([100.0, 200.0]))
    def the_worker_has_its_limits(self, limit: float) -> None:
        assert self.worker is not None
        self.post(events.Launched(self.worker, {"training_memory_mb": limit}))

    @rule(temperature=st.sampled_from([None, 60.0, 75.0, 90.0]), under_voltage=st.sampled_from([None, False, False, True]))
    def the_board_fares_otherwise(self, temperature: float | None, under_voltage: bool | None) -> None:
        self.strain = Strain(temperature, under_voltage)
        self.post(events.Looked(self.strain))

    @rule(pause=st.booleans())
    def somebody_on_the_board_pauses_or_goes_on(self, pause: bool) -> None:
        self.post(events.PauseAsked(1, pause))

    @precondition(lambda self: self.worker)
    @rule()
    def the_worker_could_not_be_started(self) -> None:
        failed, self.worker = self.worker, None
        assert failed is not None
        self.post(events.LaunchFailed(failed, ErrorCode.BAD_BUNDLE, "no bundle"))

    @rule(label=st.sampled_from(LABELS[:3]), word=st.sampled_from(WORDS))
    def a_worker_of_the_past_speaks(self, label: str, word: Any) -> None:
        if key(label) != self.worker:
            self.post(WorkerSaid(key(label), word))

    @rule(seconds=st.sampled_from([0.1, 1.0, 10.0, 120.0, 700.0]))
    def time_passes(self, seconds: float) -> None:
        self.pass_time(seconds)

    @rule(synchronized=st.booleans())
    def the_clock_is_trusted_or_not(self, synchronized: bool) -> None:
        self.now = Now(self.now.wall, self.now.mono, synchronized)

    @rule(full=st.booleans())
    def the_disk_fills_or_empties(self, full: bool) -> None:
        self.full = full
        if not full:
            self.journal |= self.unsaved
            self.unsaved.clear()

    @rule()
    def it_is_told_to_stop(self) -> None:
        self.post(events.StopAsked())

    @rule()
    def it_crashes(self) -> None:
        self.start()

    @rule(cut=st.integers(0, 8))
    def it_will_crash_soon(self, cut: int) -> None:
        self.cut = cut

    # --- what must hold --------------------------------------------------------------------------------------------------

    @invariant()
    def it_always_wants_to_wake_up_again(self) -> None:
        assert self.agent.due(self.now) < self.now.mono + 1000.0

    @invariant()
    def nothing_goes_on_on_a_board_that_must_not_work(self) -> None:
        hot = self.strain.temperature_c is not None and self.strain.temperature_c > THERMAL.hot_c
        assert self.worker is None or self.asked or not (hot or self.strain.under_voltage or self.ordered_by)

    @invariant()
    def it_can_tell_its_status(self) -> None:
        assert msgspec.json.encode(self.agent.status(self.now))

    def settle(self) -> None:
        for _ in range(500):
            if not self.underway:
                break
            self.deliver()
        assert not self.underway, "messages and answers must come to an end"
        self.pass_time(SETTLE_S)

    def teardown(self) -> None:
        """Let everything come to its end: each accepted command has one, and the broker knows it."""
        self.cut = None
        self.the_disk_fills_or_empties(False)
        self.now = Now(self.now.wall, self.now.mono, True)
        self.the_board_fares_otherwise(50.0, False)
        self.pass_time(CALM_S)
        if not self.connected:
            self.the_connection_begins(False)
        for _ in range(len(LABELS) * CONFIG.worker.attempts):
            self.settle()
            self.somebody_on_the_board_pauses_or_goes_on(False)
            if self.worker is not None:
                self.the_worker_speaks(Done({}))
                self.the_worker_ends(0, "")
            self.pass_time(700.0)
            if not self.connected:
                self.the_connection_begins(False)
        self.settle()
        for label in self.accepted & self.journal.keys():
            command = self.journal[label]
            assert command.status.terminal, f"{label} is still {command.status.value}"
            assert (command.error is None) == (command.status is Status.SUCCESSFUL)
            shown = self.retained.get(TOPICS.command(command.op, command.id))
            if label not in self.cleared | self.excused:
                assert shown is not None, f"{label} has been lost"
                assert msgspec.json.decode(shown)["status"] == command.status.value
        assert self.accepted - self.excused <= self.journal.keys()


TestInterleavings = World.TestCase
LONG = {"max_examples": 300, "stateful_step_count": 40, "report_multiple_bugs": False}
TestInterleavings.settings = settings(settings.get_profile("repeatable"), **LONG)
