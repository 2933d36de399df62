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
from reconvene_agent.core import config, messages, profile, windows
from reconvene_agent.core.atomic import full_disk_is_no_disk
from reconvene_agent.core.clock import Now
from reconvene_agent.core.config import Adopted, Config
from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.core.kernel.files import HOST
from reconvene_agent.core.requests import Board
from reconvene_agent.core.topics import SERVICE, Topics
from reconvene_agent.daemon import events
from reconvene_agent.daemon.agent import Agent
from reconvene_agent.daemon.board.pauses import Guard
from reconvene_agent.daemon.broker.connection import Connection, Will
from reconvene_agent.daemon.broker.link import link_from
from reconvene_agent.daemon.probe.clock import clock_synchronized
from reconvene_agent.daemon.probe.device import probe_device
from reconvene_agent.daemon.probe.strain import read_strain
from reconvene_agent.daemon.reporting import announce, identity
from reconvene_agent.daemon.security import tls
from reconvene_agent.daemon.security.trust import Trust
from reconvene_agent.daemon.service import logs
from reconvene_agent.daemon.service.control import ControlServer, Word
from reconvene_agent.daemon.service.executor import Executor
from reconvene_agent.daemon.service.inbox import Inbox
from reconvene_agent.daemon.service.notify import Notifier
from reconvene_agent.daemon.storage import pause_order, state_format
from reconvene_agent.daemon.storage.journal import Journal
from reconvene_agent.daemon.storage.settings import come_up, give_up
from reconvene_agent.daemon.storage.spool import Spool

if TYPE_CHECKING:
    from reconvene_agent.core.keys import PublicKey
    from reconvene_agent.daemon.reporting.homeassistant import HomeAssistant

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

    def acknowledged(self, handle: int, refusal: str) -> None:
        # Never waits: paho holds the lock here that the owner needs to publish, and the owner is who makes room.
        self._inbox.post_now(events.Delivered(handle, refusal))


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


def serve(source: Path | None) -> int:
    """Run the agent, configured by the file ``source``, until it is told to stop; return the exit code.

    Where it is to come up again, this does not return: the process becomes a new agent, with the same id.

    Raises:
        AgentError: it cannot start; the message says why.
    """
    with only_one(state := config.load(source).state_dir):
        state_format.claim(state)
        adopted = _come_up(source)
        settings = adopted.config
        logs.set_up(settings.agent.log_level, settings.agent.log_format)
        logs.keep(settings.state_dir)
        if adopted.problem:
            _log.warning("%s", adopted.problem)
        try:
            again = _Service(adopted).run()
        except AgentError as error:
            if not give_up(settings.state_dir, error.message):
                raise
            _log.error("changed settings are taken back: %s", error.message)
            again = True
    if again:
        become_anew()
    return 0


def _come_up(source: Path | None) -> Adopted:
    try:
        return come_up(source)
    except OSError as error:
        raise AgentError(f"the settings cannot be written: {error.strerror or error}") from error


def become_anew() -> None:
    """Let the same program take this process over, as it was called. What is open here is closed by that."""
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - our own interpreter and module


class _Service:
    def __init__(self, adopted: Adopted) -> None:
        config = adopted.config
        state = config.state_dir
        keys = _trusted_keys(config.security.trusted_keys)
        device = probe_device(state)
        chosen = profile.choose(profile.load_all(), device, config.agent.profile)
        self._clock = Clock(config.agent.trust_clock)
        self._inbox = Inbox()
        self._notifier = Notifier()
        self._listen_for_signals()
        topics = Topics(config.broker.root, config.device_id)
        me = identity.of_this_process(topics, __version__)
        certificate = tls.check_files(config.broker)
        home = _home(config, me, device.model, buttons=not keys)
        self._connection = self._connect(config, me, () if home is None else home.filters)
        journal = Journal(state / "journal.db")
        spool = Spool(state / "spool.db", me.boot_id, config.telemetry)
        control = ControlServer(config.socket_path, self._asked)
        self._control = control
        self._executor = Executor(config, chosen, self._inbox, journal, spool, self._connection, control, adopted.source)
        defaults = Board(config, chosen, device).defaults
        guard = Guard(chosen.thermal, tuple(map(windows.parse, config.worker.windows)), pause_order.kept(config.pause_path))
        guard.feel(read_strain(HOST), self._clock.now())
        trust = Trust(config.device_id, keys, journal.memory())
        overlay = adopted.overlay
        self._agent = Agent(me, config, journal.load(), defaults, self._clock.now(), guard, trust, certificate, overlay, home)
        _log.info("%s %s on %s, profile %s", SERVICE, __version__, config.device_id, chosen.name)
        if certificate is not None and certificate.name != config.device_id:
            what = f"the certificate {certificate.file} is for {certificate.name!r}, and this is {config.device_id!r}"
            _log.warning("%s: a broker that goes by its name keeps this agent from its own topics", what)
        if keys:
            _log.info("commands must be signed with one of the keys %s", ", ".join(keys))

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

    def run(self) -> bool:
        """Run until the agent is done; return whether it is to come up again."""
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
        return self._executor.again and not self._leaves_at_once()

    def _turn(self) -> None:
        """Wait for one event, at most until something is due, and handle it."""
        now = self._clock.now()
        wait = min(self._agent.due(now) - now.mono, self._notifier.interval_s or MAX_WAIT_S)
        event = self._inbox.get(wait)
        self._notifier.alive()
        now = self._clock.now()
        if isinstance(event, events.Delivered):
            token = self._executor.outbox.acknowledged(event.handle, event.refusal)
            if not token and wait > 0:  # a record, which is nothing to the agent
                self._executor.outbox.drain()
                return
            # What is due does not wait until all of the spool has left.
            event = events.Acknowledged(token) if token else events.Tick()
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
        self._signaled = False
        self._wakeups, self._wakeup = socket.socketpair()
        self._wakeup.setblocking(False)
        signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _leave_it_to_the_wakeup)
        threading.Thread(target=self._on_signals, name="signals", daemon=True).start()

    def _leaves_at_once(self) -> bool:
        """Return whether a signal came too late to be an event; those that come from now on end the process by themselves."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        return self._signaled

    def _on_signals(self) -> None:
        while self._wakeups.recv(1):
            self._signaled = True
            self._notifier.stopping()
            self._inbox.post_now(events.StopAsked())


def _trusted_keys(folder: str) -> dict[str, PublicKey]:
    """Return the keys in a folder by their ids; only where one is configured is what reads them loaded."""
    if not folder:
        return {}
    from reconvene_agent.daemon.security.keyring import trusted_keys

    return trusted_keys(folder)


def _home(config: Config, me: identity.Identity, board: str, buttons: bool) -> HomeAssistant | None:
    """Return what tells Home Assistant, if that is wanted or was; only then is it loaded."""
    if not config.broker.url or not (config.homeassistant.discovery or config.discovered_path.exists()):
        return None
    import random

    from reconvene_agent.daemon.reporting.homeassistant import HomeAssistant
    from reconvene_agent.daemon.storage import discovered

    held = discovered.kept(config.discovered_path)
    return HomeAssistant(me, config, held, board, buttons=buttons, spread=random.random)


def _leave_it_to_the_wakeup(_number: int, _frame: FrameType | None) -> None:
    """Take the place of the signal's own effect, which would end the process."""
