"""Carries out the agent's effects, in order: disk first, then the worker, then the wire."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from reconvene_agent.core import atomic, census
from reconvene_agent.core.config import Config
from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.core.job import Command
from reconvene_agent.core.kernel.files import HOST
from reconvene_agent.core.kernel.throttling import held_down
from reconvene_agent.core.profile import Profile
from reconvene_agent.core.protocol import Request, TimeRequest
from reconvene_agent.core.requests import memory_limits, runtime
from reconvene_agent.daemon import effects as do
from reconvene_agent.daemon import events
from reconvene_agent.daemon.board import drift
from reconvene_agent.daemon.broker.connection import Connection
from reconvene_agent.daemon.broker.outbox import Outbox
from reconvene_agent.daemon.effects import Effect
from reconvene_agent.daemon.events import WorkerEnded
from reconvene_agent.daemon.probe.device import probe_device
from reconvene_agent.daemon.probe.sample import system_sample
from reconvene_agent.daemon.probe.strain import read_strain
from reconvene_agent.daemon.service import logs
from reconvene_agent.daemon.service.control import ControlServer
from reconvene_agent.daemon.service.inbox import Inbox
from reconvene_agent.daemon.storage import pause_order
from reconvene_agent.daemon.storage.database import DatabaseFullError
from reconvene_agent.daemon.storage.journal import Journal
from reconvene_agent.daemon.storage.releases import Keeper
from reconvene_agent.daemon.storage.settings import SettingsKeeper
from reconvene_agent.daemon.storage.spool import Spool
from reconvene_agent.daemon.worker import launch
from reconvene_agent.daemon.worker.process import WorkerProcess

_log = logging.getLogger("reconvene_agent")


class Executor:
    """Everything the agent can do to the world. Used by the owner's thread alone."""

    def __init__(
        self,
        config: Config,
        profile: Profile,
        inbox: Inbox,
        journal: Journal,
        spool: Spool,
        connection: Connection | None,
        control: ControlServer,
        source: Path | None = None,
    ) -> None:
        """``source`` is the owner's configuration file."""
        self._config = config
        self._profile = profile
        self._inbox = inbox
        self._journal = journal
        self._spool = spool
        self._control = control
        self._source = source
        self._keeper = Keeper(config.models_dir)
        self._worker: WorkerProcess | None = None
        self._counting: threading.Thread | None = None
        self._timing: WorkerProcess | None = None
        self._unsaved: dict[str, Command] = {}
        self._records: list[do.Record] = []  # of the effects that are being done
        self._unexposed = False
        self._unconfined = False
        self.outbox = Outbox(connection, spool)
        self.done = False
        self.again = False
        """Whether, being done, the agent is to come up again."""
        self._actions: dict[type[Effect], Callable[[Any], None]] = {
            do.Save: self._save,
            do.Forget: self._forget,
            do.ForgetNonces: self._forget_nonces,
            do.Publish: lambda effect: self.outbox.publish(effect.topic, effect.payload, effect.retain, effect.token),
            do.Record: self._records.append,
            do.Launch: self._launch,
            do.AskWorker: self._ask_worker,
            do.EndWorker: self._end_worker,
            do.Clean: lambda effect: atomic.remove_tree(launch.work_folder(self._config, effect.key)),
            do.Sample: self._sample,
            do.CountData: self._count_data,
            do.ReadRelease: lambda _: self._inbox.post_now(self._keeper.read()),
            do.SwitchRelease: lambda effect: self._inbox.post_now(self._keeper.switch(effect)),
            do.UpdateSettings: lambda effect: self._inbox.post_now(self._settings().update(effect)),
            do.SettleSettings: lambda effect: self._inbox.post_now(self._settings().settle(effect)),
            do.AskRestart: lambda effect: self._inbox.post_now(events.RestartAsked(effect.label)),
            do.ReadLog: self._read_log,
            do.Look: lambda _: self._inbox.post_now(events.Looked(read_strain(HOST))),
            do.TimeModel: self._time_model,
            do.EndTiming: lambda _: self._timing.kill() if self._timing is not None else None,
            do.KeepPause: self._keep_pause,
            do.KeepDiscovered: self._keep_discovered,
            do.Expose: self._expose,
            do.Answer: lambda effect: self._control.answer(effect.ticket, effect.document),
            do.Remember: self._remember,
            do.Log: self._say,
            do.Quit: self._quit,
        }

    def carry_out(self, effects: Iterable[Effect]) -> None:
        """Do the effects in order. If a command's first state cannot be stored, what follows it is not done.

        Records go into the spool last, all in one.
        """
        self._save_what_failed()
        try:
            for effect in effects:
                self._actions[type(effect)](effect)
        except _FirstSaveFailedError as failure:
            self._inbox.post_now(events.JournalFailed(failure.label, str(failure)))
        self._spool.append(self._records)
        self._records.clear()
        self.outbox.drain()

    def close(self) -> None:
        """Let go of the disk, and of the worker that times the model: the process may be about to become another."""
        if self._timing is not None:
            self._timing.end()
        self._save_what_failed()
        self.outbox.close()
        self._journal.close()
        self._spool.close()

    def _save(self, effect: do.Save) -> None:
        label = effect.command.label
        try:
            self._journal.save(*effect.commands)
        except DatabaseFullError as error:
            if effect.first:
                raise _FirstSaveFailedError(label, str(error)) from error
            if label not in self._unsaved:
                detail = "%s cannot be journaled (%s): free some disk; it is tried again"
                _log.error(detail, label, error, extra=logs.about(label))
            self._unsaved.update({command.label: command for command in effect.commands})
        else:
            for command in effect.commands:
                self._unsaved.pop(command.label, None)

    def _save_what_failed(self) -> None:
        if self._unsaved:
            with contextlib.suppress(DatabaseFullError):
                self._journal.save(*self._unsaved.values())
                self._unsaved.clear()

    def _forget(self, effect: do.Forget) -> None:
        self._unsaved.pop(effect.command.label, None)
        try:
            self._journal.forget(effect.command, effect.nonce)
        except DatabaseFullError:
            pass  # an old command too many does no harm

    def _forget_nonces(self, effect: do.ForgetNonces) -> None:
        try:
            self._journal.forget_nonces(effect.until)
        except DatabaseFullError:
            pass  # nor does an old nonce

    def _launch(self, effect: do.Launch) -> None:
        key = effect.command.key
        try:
            request, threads = launch.request_for(effect.command, self._config, self._profile)
            self._inbox.post_now(events.Launched(key, memory_limits(request)))
            log = partial(_log.getChild("worker").info, "%s", extra=logs.about(effect.command.label))
            self._worker = WorkerProcess(key, request, self._inbox.post, log, self._config.worker.python, threads)
            self._enclose(self._worker, request)
        except AgentError as error:
            self._inbox.post_now(events.LaunchFailed(key, error.code, error.message))
        except OSError as error:
            detail = f"the worker cannot be started: {error.strerror or error}"
            self._inbox.post_now(events.LaunchFailed(key, ErrorCode.INTERNAL, detail))

    def _enclose(self, worker: WorkerProcess, request: Request) -> None:
        """Limit the worker's memory, where that can be done; that it cannot is said once."""
        from reconvene_agent.daemon.worker import confinement

        try:
            confinement.enclose(worker.pid, confinement.limit_mb(request))
        except AgentError as error:
            if not self._unconfined:
                _log.info("workers have no memory limit of their own: %s", error)
            self._unconfined = True

    def _time_model(self, _effect: do.TimeModel) -> None:
        compute = runtime(self._profile, probe_device(self._config.state_dir))
        request = TimeRequest(str(self._config.models_dir), compute)
        log = partial(_log.getChild("worker").info, "%s")
        try:
            python, threads = self._config.worker.python, compute.inference_threads
            self._timing = WorkerProcess(drift.KEY, request, self._inbox.post, log, python, threads)
        except (AgentError, OSError) as error:
            _log.warning("the deployed model cannot be timed: %s", error)
            self._inbox.post_now(WorkerEnded(drift.KEY, 0, "", False, ""))

    def _ask_worker(self, effect: do.AskWorker) -> None:
        if self._worker is not None:
            self._worker.ask_to_stop(effect.mode)

    def _end_worker(self, effect: do.EndWorker) -> None:
        if self._worker is not None:
            (self._worker.kill if effect.hard else self._worker.terminate)()

    def _sample(self, _effect: do.Sample) -> None:
        figures = system_sample(self._config.state_dir)
        self._inbox.post_now(events.Sampled(figures, probe_device(self._config.state_dir), held_down(HOST)))

    def _count_data(self, _effect: do.CountData) -> None:
        """Count in a thread of its own: on a slow card many files take long."""
        if self._counting is not None and self._counting.is_alive():
            return

        def count() -> None:
            found = census.take(self._config.data_dir / self._config.specialize.data)
            if found is not None:
                self._inbox.post_now(events.DataCounted(found))

        self._counting = threading.Thread(target=count, name="census", daemon=True)
        self._counting.start()

    def _keep_pause(self, effect: do.KeepPause) -> None:
        try:
            pause_order.keep(self._config.pause_path, effect.ordered_by)
        except (AgentError, OSError) as error:
            _log.error("that work is %spaused cannot be kept over a restart: %s", "" if effect.ordered_by else "not ", error)

    def _keep_discovered(self, effect: do.KeepDiscovered) -> None:
        from reconvene_agent.daemon.storage import discovered

        try:
            discovered.keep(self._config.discovered_path, effect.topics)
        except (AgentError, OSError) as error:
            _log.error("what Home Assistant was told cannot be kept, and so not be cleared when discovery is off: %s", error)

    def _expose(self, effect: do.Expose) -> None:
        from reconvene_agent.daemon.reporting import prometheus

        path = Path(self._config.prometheus.textfile)
        content = prometheus.render(effect.status, effect.figures, self._spool.dropped, effect.wall)

        def fill(aside: Path) -> None:
            aside.write_bytes(content)
            aside.chmod(0o644)  # node_exporter is another user

        try:
            atomic.write_with(path, fill)
        except (AgentError, OSError) as error:
            if not self._unexposed:
                _log.warning("the figures for Prometheus cannot be written: %s; it is tried again without a word", error)
            self._unexposed = True
        else:
            self._unexposed = False

    def _remember(self, effect: do.Remember) -> None:
        try:
            atomic.write_bytes(self._config.status_path, msgspec.json.encode(effect.document))
        except (AgentError, OSError) as error:
            _log.warning("the last known status cannot be kept: %s", error)

    def _settings(self) -> SettingsKeeper:
        return SettingsKeeper(self._config, self._source)

    def _read_log(self, effect: do.ReadLog) -> None:
        parts = logs.last(self._config.state_dir, effect.lines, effect.level, effect.command)
        self._inbox.post_now(events.LogRead(effect.label, parts))

    def _say(self, effect: do.Log) -> None:
        _log.log(logging.getLevelName(effect.level.upper()), "%s", effect.text, extra=logs.about(effect.about))

    def _quit(self, effect: do.Quit) -> None:
        self.done, self.again = True, effect.again


class _FirstSaveFailedError(Exception):
    def __init__(self, label: str, detail: str) -> None:
        super().__init__(detail)
        self.label = label
