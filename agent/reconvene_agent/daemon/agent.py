"""The agent itself: its whole state, and one function from an event to what is to be done about it.

Pure: no clock, no disk, no socket. The loop hands in events with the time they are handled at, and carries out the effects
in their order. The life of commands is in ``commands``; here is the agent's own: start and stop, the broker, the board.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from reconvene_agent.core import updatable
from reconvene_agent.core.clock import Now
from reconvene_agent.core.config import Config
from reconvene_agent.core.device import Device, Strain
from reconvene_agent.core.errors import UsageError
from reconvene_agent.core.job import Command
from reconvene_agent.core.messages import decode_object
from reconvene_agent.core.overlay import Overlay
from reconvene_agent.core.topics import CommandTopic
from reconvene_agent.daemon import effects as do
from reconvene_agent.daemon import events
from reconvene_agent.daemon.board import drift
from reconvene_agent.daemon.board.drift import Drift
from reconvene_agent.daemon.board.pauses import Guard
from reconvene_agent.daemon.board.vitals import Vitals
from reconvene_agent.daemon.commands.life import Commands
from reconvene_agent.daemon.effects import Effect
from reconvene_agent.daemon.events import Event, WorkerEnded, WorkerSaid
from reconvene_agent.daemon.reporting import announce, reports, status
from reconvene_agent.daemon.reporting.alarms import Alarms, Name
from reconvene_agent.daemon.reporting.deployed import Deployed
from reconvene_agent.daemon.reporting.identity import Identity
from reconvene_agent.daemon.reporting.status import Broker
from reconvene_agent.daemon.security.trust import Trust

if TYPE_CHECKING:  # it takes memory, which only those give it who have switched it on
    from reconvene_agent.daemon.reporting.homeassistant import HomeAssistant
    from reconvene_agent.daemon.security.certificate import Certificate

NO_OVERLAY = Overlay()
SETTLE_S = 0.5
SETTLE_MOST_S = 5.0
TIDY_EVERY_S = 600.0
HEALTH_CHECK = CommandTopic("health", "check")
"""What thin-edge.io's watchdog asks, under a command's topic without being one: health is to be told again."""

Effects = Iterator[Effect]


class Agent:
    """One agent. ``known`` is what the journal held; ``defaults`` fills in what commands leave out.

    ``guard`` has seen the board already; ``trust`` knows who may command; ``certificate`` is what the
    agent shows to the broker; ``overlay`` is what commands have changed of the configuration. ``home`` is there if Home
    Assistant is to be told, or to be told no longer.
    """

    def __init__(
        self,
        identity: Identity,
        config: Config,
        known: Iterable[Command],
        defaults: dict[str, Any],
        now: Now,
        guard: Guard,
        trust: Trust,
        certificate: Certificate | None = None,
        overlay: Overlay = NO_OVERLAY,
        home: HomeAssistant | None = None,
    ) -> None:
        self._identity = identity
        self._topics = identity.topics
        self._config = config
        self._commands = Commands(identity, config, known, defaults, guard, trust, overlay, now)
        self._updated = updatable.names(overlay.settings)
        self._guard = guard
        self._certificate = certificate
        self._home = home
        self._started = now.mono
        self._alarms = Alarms(identity.topics)
        self._vitals = Vitals(identity.topics, self._alarms)
        reserve = 0.0 if config.budget.reserve_mb is UNSET else config.budget.reserve_mb
        self._drift = Drift(identity.topics, self._alarms, config.drift, reserve, now.mono)
        self._broker = Broker(config.broker.url)
        self._announced = False
        self._settle_at: float | None = None
        self._settle_by = now.mono
        self._sample_at = now.mono
        self._tidy_at = now.mono
        self._device: Device | None = None
        self._deployed = Deployed(identity, self._alarms)
        self._quitting = False
        commands = self._commands
        self._renewal = renewal = commands.errands.renewal
        self._handlers: dict[type[Event], Callable[[Any, Now], Effects]] = {
            events.Started: self._on_started,
            events.Connected: self._on_connected,
            events.Disconnected: self._on_disconnected,
            events.Received: self._on_received,
            events.Acknowledged: self._on_acknowledged,
            events.LaunchFailed: commands.launch_failed,
            events.JournalFailed: commands.journal_failed,
            events.Launched: commands.launched,
            events.Sampled: self._on_sampled,
            events.DataCounted: self._on_data_counted,
            events.Looked: lambda event, now: self._feel(event.strain, now),
            events.ReleaseRead: self._on_release_read,
            events.ReleaseSwitched: commands.errands.release_switched,
            events.SettingsUpdated: renewal.updated,
            events.SettingsSettled: renewal.settled,
            events.RestartAsked: renewal.restart_asked,
            events.LogRead: commands.errands.log_read,
            events.StatusAsked: self._on_status_asked,
            events.PauseAsked: self._on_pause_asked,
            events.StopAsked: lambda _event, now: commands.stop_for_good(now),
            events.Tick: self._on_tick,
            WorkerSaid: self._on_worker_said,
            WorkerEnded: lambda event, now: (
                self._drift.ended(event) if event.key == drift.KEY else commands.worker_ended(event, now)
            ),
        }

    def handle(self, event: Event, now: Now) -> list[Effect]:
        """Take in one event and return what is to be done, in order."""
        before = self._commands.state
        effects = list(self._commands.ledger.relieve(now, self._broker.connected))
        # What was due before goes first: if a new command then cannot be journaled, nothing but its own start is left undone.
        # Only at the very start the runs that were interrupted come before those that wait.
        effects += [] if isinstance(event, events.Started) else self._commands.start_due(now)
        effects += self._handlers[type(event)](event, now)
        effects += self._commands.start_due(now)
        if self._commands.state != before:
            effects += self._health(now)
            effects.append(do.Remember(self.status(now)))
        if self._home is not None and self._announced:
            effects += self._home.step(self._commands.state, self._commands.started, now)
        if self._commands.stopping and self._commands.running is None and not self._quitting:
            self._quitting = True
            effects += self._quit(now)
        return effects

    def due(self, now: Now) -> float:
        """Return when, on the monotonic clock, the agent wants a Tick if nothing happens before."""
        home = None if self._home is None or not self._announced else self._home.due
        times = (self._sample_at, self._tidy_at, self._settle_at, self._commands.due(now), self._drift.due, home)
        return min(time for time in times if time is not None)

    def status(self, now: Now) -> dict[str, Any]:
        """Return the status document."""
        return status.document(
            self._identity,
            now,
            self._started,
            self._commands.state,
            self._broker,
            self._commands.running,
            self._deployed.release,
            self._device,
            self._alarms.problems,
            self._commands.paused.first,
            self._commands.paused.waits_for,
            self._updated,
        )

    # --- life of the process ---------------------------------------------------------------------------------------------

    def _on_started(self, _event: events.Started, now: Now) -> Effects:
        yield do.ReadRelease()
        yield from self._commands.resume(now)
        yield from self._renewal.came_up()
        yield do.Remember(self.status(now))

    def _quit(self, now: Now) -> Effects:
        yield do.Remember({**self.status(now), "state": "stopped"})
        yield do.Publish(self._topics.health, announce.down(self._identity))
        yield do.Quit(self._commands.again)

    def _on_tick(self, _event: events.Tick, now: Now) -> Effects:
        if self._settle_at is not None and now.mono >= self._settle_at:
            self._settle_at = None
            yield from self._announce(now)
        if now.mono >= self._sample_at:
            self._sample_at = now.mono + self._config.telemetry.interval_s
            yield do.Sample()
            # Somebody on the board may have switched it.
            yield do.ReadRelease()
        if now.mono >= self._tidy_at:
            self._tidy_at = now.mono + TIDY_EVERY_S
            yield from self._commands.ledger.tidy(now, self._announced)
            yield from self._look_at_certificate(now)
            if self._config.specialize.new_data_share and self._commands.running is None:
                yield do.CountData()
        yield from self._commands.supervise(now)
        yield from self._renewal.step(self._broker.reason, now)
        yield from self._drift.step(self._commands.state == "idle", now)

    def _look_at_certificate(self, now: Now) -> Effects:
        trouble = None if self._certificate is None else self._certificate.trouble(now)
        if trouble is None:
            yield from self._alarms.clear("certificate")
        else:
            yield from self._alarms.sound("certificate", *trouble, now.wall)

    def _on_worker_said(self, event: WorkerSaid, now: Now) -> Effects:
        if event.key == drift.KEY:
            yield from self._drift.said(event, self._commands.state == "idle", now)
        else:
            yield from self._commands.worker_said(event, now)

    def _on_sampled(self, event: events.Sampled, now: Now) -> Effects:
        first = self._device is None
        self._device = event.device
        if first:
            yield announce.twin(self._identity, "hardware", announce.hardware(event.device))
        yield reports.measurement(self._topics, "system", event.figures, now.wall)
        yield from self._drift.sampled(event.device.memory.available_mb, now)
        serving = self._deployed.release
        if self._config.drift.auto and self._drift.unfit and serving is not None:
            yield from self._commands.arrivals.drifted(serving, now)
        yield from self._vitals.sampled(event.device, event.held_down, now.wall)
        if self._config.prometheus.textfile:
            yield do.Expose(self.status(now), event.figures, now.wall)
        power = event.device.power
        yield from self._feel(Strain(event.device.temperature_c, None if power is None else power.under_voltage), now)

    def _feel(self, strain: Strain, now: Now) -> Effects:
        """Take in how the board fares, and let the fleet know when it fares badly."""
        self._guard.feel(strain, now)
        states: tuple[tuple[Name, str], ...] = (("over_temperature", self._guard.heat), ("under_voltage", self._guard.weakness))
        for name, text in states:
            yield from self._alarms.sound(name, text, "major", now.wall) if text else self._alarms.clear(name)

    def _on_release_read(self, event: events.ReleaseRead, now: Now) -> Effects:
        news = list(self._deployed.read(event, now))
        yield from news
        if news:
            yield do.Remember(self.status(now))
        yield from self._drift.deployed(event.release)

    def _on_data_counted(self, event: events.DataCounted, now: Now) -> Effects:
        yield from self._commands.arrivals.new_data(
            event.census, self._deployed.release, self._config.specialize.new_data_share, now
        )

    def _on_status_asked(self, event: events.StatusAsked, now: Now) -> Effects:
        yield do.Answer(event.ticket, self.status(now))

    def _on_pause_asked(self, event: events.PauseAsked, now: Now) -> Effects:
        yield from self._commands.paused.order("command line" if event.pause else "", now)
        yield do.Answer(event.ticket, {"paused": self._commands.paused.text(now)})

    # --- the broker ------------------------------------------------------------------------------------------------------

    def _on_connected(self, event: events.Connected, now: Now) -> Effects:
        self._broker = Broker(self._broker.url, True, event.protocol, "")
        # Retained commands arrive now; only when they are known is the birth announced, so that it tells the truth.
        self._settle_at, self._settle_by = now.mono + SETTLE_S, now.mono + SETTLE_MOST_S
        yield do.Log("info", f"connected to {self._broker.url} with MQTT {event.protocol}")
        yield from self._renewal.connected()

    def _on_disconnected(self, event: events.Disconnected, now: Now) -> Effects:
        was = self._broker.connected
        self._broker = Broker(self._broker.url, False, "", event.reason)
        self._announced, self._settle_at = False, None
        yield do.Log("warning", f"no broker: {event.reason}; next try in {event.retry_s:.0f} s")
        if was:
            yield do.Remember(self.status(now))

    def _announce(self, now: Now) -> Effects:
        self._announced = True
        yield from announce.birth(self._identity)
        yield announce.up(self._identity, self._commands.state, now.wall)
        yield announce.twin(self._identity, "config", {**self._config.public(), "updated": self._updated})
        if self._device is not None:
            yield announce.twin(self._identity, "hardware", announce.hardware(self._device))
        yield from self._deployed.announce()
        yield from self._alarms.announce()
        yield from self._commands.ledger.announce()
        if self._home is not None:
            yield from self._home.announce()
        yield do.Remember(self.status(now))

    def _on_acknowledged(self, event: events.Acknowledged, now: Now) -> Effects:
        yield from self._commands.ledger.acknowledged(event.token, now)
        if self._home is not None:
            yield from self._home.acknowledged(event.token)

    def _health(self, now: Now) -> Effects:
        if self._announced:
            yield announce.up(self._identity, self._commands.state, now.wall)

    def _on_received(self, event: events.Received, now: Now) -> Effects:
        if event.topic == self._topics.health:
            if self._announced and self._says_down(event.payload):
                yield from self._health(now)
            return
        if self._home is not None and event.topic in self._home.filters:
            yield from self._home.received(event, self._commands.arrivals.receive, now)
            return
        topic = self._topics.parse_command(event.topic)
        if topic == HEALTH_CHECK:
            yield from self._health(now)
            return
        if topic is None:
            yield do.Log("debug", f"a message on {event.topic} is not for this agent")
            return
        if self._settle_at is not None:
            self._settle_at = min(now.mono + SETTLE_S, self._settle_by)
        yield from self._commands.arrivals.receive(event, topic, now)

    def _says_down(self, raw: bytes | None) -> bool:
        """Whether a health message is not our own ``up``: the last will of an earlier session, say."""
        try:
            said = decode_object(raw or b"{}")
        except UsageError:
            return True
        return said.get("status") != "up" or said.get("session") != self._identity.session
