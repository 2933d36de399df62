"""The daemon assembled: adapters around one agent, and the loop that owns its state."""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from reconvene_agent import __version__
from reconvene_agent.core import messages, profile, windows
from reconvene_agent.core.atomic import full_disk_is_no_disk
from reconvene_agent.core.clock import Now
from reconvene_agent.core.config import Config
from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.core.kernel.files import HOST
from reconvene_agent.core.requests import Board
from reconvene_agent.core.topics import SERVICE, Topics
from reconvene_agent.daemon import announce, events, identity, order
from reconvene_agent.daemon.agent import Agent
from reconvene_agent.daemon.control import ControlServer, Word
from reconvene_agent.daemon.executor import Executor
from reconvene_agent.daemon.inbox import Inbox
from reconvene_agent.daemon.journal import Journal
from reconvene_agent.daemon.mqtt import Connection, Will, link_from
from reconvene_agent.daemon.notify import Notifier
from reconvene_agent.daemon.pauses import Guard
from reconvene_agent.daemon.probe.clock import clock_synchronized
from reconvene_agent.daemon.probe.device import probe_device
from reconvene_agent.daemon.probe.strain import read_strain
from reconvene_agent.daemon.spool import Spool

if TYPE_CHECKING:
    from reconvene_agent.daemon.homeassistant import HomeAssistant

CLOCK_CHECK_S = 5.0
GOODBYE_S = 2.0
MAX_WAIT_S = 60.0

_log = logging.getLogger("reconvene_agent")


class _Adapter:
    """Turns what the connection hears into events."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox

    def connected(self, protocol: str) -> None:
        self._inbox.post(events.Connected(protocol))

    def disconnected(self, reason: str, retry_s: float) -> None:
        self._inbox.post(events.Disconnected(reason, retry_s))

    def received(self, topic: str, payload: bytes | None, size: int) -> None:
        self._inbox.post(events.Received(topic, payload, size))

    def acknowledged(self, handle: int) -> None:
        # Never waits: paho holds the lock here that the owner needs to publish, and the owner is who makes room.
        self._inbox.post_now(events.Delivered(handle))


class Clock:
    """The clocks, and whether the wall clock can be believed; that is looked up now and then."""

    def __init__(self, trusted: bool) -> None:
        self._trusted = trusted
        self._synchronized = trusted
        self._checked = float("-inf")

    def now(self) -> Now:
        mono = time.monotonic()
        if not self._trusted and mono - self._checked >= CLOCK_CHECK_S:
            self._checked = mono
            self._synchronized = clock_synchronized(HOST)
        return Now(time.time(), mono, self._synchronized)


@contextmanager
def only_one(state_dir: Path) -> Iterator[None]:
    """Hold the state folder for this process.

    Raises:
        AgentError: BUSY when another agent holds it; or it cannot be made.
    """
    with ExitStack() as held:
        try:
            with full_disk_is_no_disk(f"making {state_dir}"):
                state_dir.mkdir(parents=True, exist_ok=True)
                lock = held.enter_context((state_dir / "agent.lock").open("a"))
        except OSError as error:
            raise AgentError(f"the state folder {state_dir} cannot be used: {error.strerror or error}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise AgentError(f"another agent already runs on {state_dir}", ErrorCode.BUSY) from error
        yield


def serve(config: Config) -> int:
    """Run the agent until it is told to stop; return the exit code.

    Raises:
        AgentError: it cannot start; the message says why.
    """
    _set_up_log(config.agent.log_level)
    with only_one(config.state_dir):
        return _Service(config).run()


class _Service:
    def __init__(self, config: Config) -> None:
        state = config.state_dir
        device = probe_device(state)
        chosen = profile.choose(profile.load_all(), device, config.agent.profile)
        self._clock = Clock(config.agent.trust_clock)
        self._inbox = Inbox()
        self._notifier = Notifier()
        self._listen_for_signals()
        topics = Topics(config.broker.root, config.device_id)
        me = identity.of_this_process(topics, __version__)
        home = _home(config, me, device.model)
        self._connection = self._connect(config, me, () if home is None else home.filters)
        journal = Journal(state / "journal.db")
        spool = Spool(state / "spool.db", me.boot_id, config.telemetry.spool_bytes)
        control = ControlServer(config.socket_path, self._asked)
        self._control = control
        self._executor = Executor(config, chosen, self._inbox, journal, spool, self._connection, control)
        defaults = Board(config, chosen, device).defaults
        guard = Guard(chosen.thermal, tuple(map(windows.parse, config.worker.windows)), order.kept(config.pause_path))
        guard.feel(read_strain(HOST), self._clock.now())
        self._agent = Agent(me, config, journal.load(), defaults, self._clock.now(), guard, home)
        _log.info("%s %s on %s, profile %s", SERVICE, __version__, config.device_id, chosen.name)

    def _asked(self, ticket: int, word: Word) -> None:
        self._inbox.post(events.StatusAsked(ticket) if word == "status" else events.PauseAsked(ticket, word == "pause"))

    def _connect(self, config: Config, me: identity.Identity, more: tuple[str, ...]) -> Connection | None:
        if not config.broker.url:
            _log.info("no broker is configured: the agent works by itself")
            return None
        link = link_from(config.broker, f"{SERVICE}-{config.device_id}")
        will = Will(me.topics.health, announce.down(me))
        greeting = Will(me.topics.service, messages.registration(SERVICE))
        subscriptions = (me.topics.commands, me.topics.health, *more)
        return Connection(link, will, subscriptions, _Adapter(self._inbox), greeting)

    def run(self) -> int:
        if self._connection is not None:
            self._connection.start()
        self._inbox.post_now(events.Started())
        self._notifier.ready()
        try:
            while not self._executor.done:
                self._turn()
        finally:
            if self._connection is not None:
                self._connection.close(GOODBYE_S)
            self._control.close()
            self._executor.close()
        return 0

    def _turn(self) -> None:
        """Wait for one event, at most until something is due, and handle it."""
        now = self._clock.now()
        wait = min(self._agent.due(now) - now.mono, self._notifier.interval_s or MAX_WAIT_S)
        event = self._inbox.get(wait)
        self._notifier.alive()
        now = self._clock.now()
        if isinstance(event, events.Delivered):
            token = self._executor.outbox.acknowledged(event.handle)
            event = events.Acknowledged(token)
        elif isinstance(event, events.Connected):
            self._executor.outbox.begin()
        elif isinstance(event, events.Disconnected):
            self._executor.outbox.end()
        elif event is None:
            event = events.Tick()
        self._executor.carry_out(self._agent.handle(event, now))

    def _listen_for_signals(self) -> None:
        """Turn SIGTERM and SIGINT into events.

        A handler in Python runs in this thread, which may just be going to sleep in the inbox and would find the signal only
        when something else wakes it up. So the byte that Python writes on a signal goes to a thread that waits for it.
        """
        self._wakeups, self._wakeup = socket.socketpair()
        self._wakeup.setblocking(False)
        signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _leave_it_to_the_wakeup)
        threading.Thread(target=self._on_signals, name="signals", daemon=True).start()

    def _on_signals(self) -> None:
        while self._wakeups.recv(1):
            self._notifier.stopping()
            self._inbox.post_now(events.StopAsked())


def _home(config: Config, me: identity.Identity, board: str) -> HomeAssistant | None:
    """Return what tells Home Assistant, if that is wanted or was; only then is it loaded."""
    if not config.broker.url or not (config.homeassistant.discovery or config.discovered_path.exists()):
        return None
    import random

    from reconvene_agent.daemon import discovered
    from reconvene_agent.daemon.homeassistant import HomeAssistant

    held = discovered.kept(config.discovered_path)
    return HomeAssistant(me, config, held, board, buttons=True, spread=random.random)


def _leave_it_to_the_wakeup(_number: int, _frame: FrameType | None) -> None:
    """Take the place of the signal's own effect, which would end the process."""


_PRIORITY = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


class _LogFormatter(logging.Formatter):
    """One line a record; under systemd with the journal's level prefix and without the time, which the journal adds."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record).replace("\n", " | ")
        if "JOURNAL_STREAM" in os.environ:
            return f"<{_PRIORITY.get(record.levelno, 6)}>{text}"
        return f"{self.formatTime(record)} {record.levelname.lower()} {text}"


def _set_up_log(level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LogFormatter("%(message)s"))
    root = logging.getLogger("reconvene_agent")
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    root.propagate = False
