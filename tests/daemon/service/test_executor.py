from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reconvene_agent.core import census
from reconvene_agent.core.census import Census
from reconvene_agent.core.clock import Now
from reconvene_agent.core.config import AgentSection, Config, PrometheusSection
from reconvene_agent.core.device import Strain
from reconvene_agent.core.errors import ErrorCode
from reconvene_agent.core.job import Command, Status, advance
from reconvene_agent.core.overlay import Overlay
from reconvene_agent.daemon import effects as do
from reconvene_agent.daemon import events
from reconvene_agent.daemon.security.trust import Nonce
from reconvene_agent.daemon.service.control import ControlServer
from reconvene_agent.daemon.service.executor import Executor
from reconvene_agent.daemon.service.inbox import Inbox
from reconvene_agent.daemon.storage import discovered, pause_order
from reconvene_agent.daemon.storage.database import DatabaseFullError
from reconvene_agent.daemon.storage.journal import Journal
from reconvene_agent.daemon.storage.spool import Spool
from reconvene_agent.daemon.worker import launch
from support.agents import WALL, AgentBench
from support.disks import fill, tiny_disk
from support.exposition import parse
from support.spools import open_spool, waiting
from support.values import profile


def command(number: int = 1) -> Command:
    return Command("plan", str(number), {"args": {}}, "d", WALL, WALL, Status.SCHEDULED, rev=1)


class Disk:
    """A journal whose disk is full when the test says so."""

    def __init__(self, path: Path) -> None:
        self.journal = Journal(path)
        self.full = False

    def __getattr__(self, name: str) -> Any:
        if self.full and name in ("save", "forget", "forget_nonces"):
            return self._refuse
        return getattr(self.journal, name)

    def _refuse(self, *_: object) -> None:
        raise DatabaseFullError("database or disk is full")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(agent=AgentSection(state_dir=str(tmp_path)))


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path / "journal.db")


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return open_spool(tmp_path / "spool.db")


@pytest.fixture
def executor(config: Config, inbox: Inbox, disk: Disk, spool: Spool) -> Iterator[Executor]:
    control = ControlServer(config.socket_path, lambda *_: None)
    made = Executor(config, profile(), inbox, disk, spool, None, control)  # type: ignore[arg-type]
    yield made
    control.close()
    made.close()


def test_states_reach_the_journal_in_order(executor: Executor, disk: Disk) -> None:
    newer = advance(command(), WALL + 1, Status.EXECUTING)
    executor.carry_out([do.Save(command(), first=True), do.Save(newer)])
    assert disk.journal.load() == [newer]
    executor.carry_out([do.Forget(newer)])
    assert disk.journal.load() == []


def test_if_the_first_state_cannot_be_stored_nothing_after_it_is_done(executor: Executor, disk: Disk, inbox: Inbox) -> None:
    disk.full = True
    executor.carry_out([do.Sample(), do.Save(command(), first=True), do.Launch(command()), do.Quit()])
    assert isinstance(inbox.get(0), events.Sampled)
    assert inbox.get(0) == events.JournalFailed("plan/1", "database or disk is full")
    assert inbox.get(0) is None
    assert not executor.done


def test_a_later_state_is_stored_as_soon_as_there_is_room(
    executor: Executor, disk: Disk, inbox: Inbox, caplog: pytest.LogCaptureFixture
) -> None:
    executor.carry_out([do.Save(command(), first=True)])
    disk.full = True
    states = [advance(command(), WALL + 1, Status.EXECUTING)]
    states.append(advance(states[0], WALL + 2, Status.FAILED))
    for state in states:
        executor.carry_out([do.Save(state)])
    executor.carry_out([])
    assert disk.journal.load() == [command()]
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1, "it is said once"
    disk.full = False
    executor.carry_out([])
    assert disk.journal.load() == [states[-1]]
    assert inbox.get(0) is None


def test_two_states_are_stored_together_or_not_at_all(executor: Executor, disk: Disk) -> None:
    other = Command("cancel", "2", {}, "", WALL, WALL)
    pair = do.Save(advance(command(), WALL + 1, Status.FAILED), also=other)
    executor.carry_out([do.Save(command(), first=True)])
    disk.full = True
    executor.carry_out([pair])
    assert disk.journal.load() == [command()]
    disk.full = False
    executor.carry_out([])
    assert disk.journal.load() == [other, pair.command]


def test_what_is_forgotten_meanwhile_does_not_come_back(executor: Executor, disk: Disk) -> None:
    executor.carry_out([do.Save(command(), first=True)])
    disk.full = True
    executor.carry_out([do.Save(advance(command(), WALL + 1, Status.FAILED)), do.Forget(command())])
    disk.full = False
    executor.carry_out([])
    executor.carry_out([do.Forget(command())])
    executor.carry_out([])
    assert disk.journal.load() == []


def test_nonces_outlive_their_commands_and_are_forgotten_in_their_turn(executor: Executor, disk: Disk) -> None:
    executor.carry_out([do.Forget(command(), Nonce("key:1", WALL)), do.Forget(command(), Nonce("key:2", WALL + 1))])
    assert disk.journal.memory().nonces == {"key:1": WALL, "key:2": WALL + 1}
    executor.carry_out([do.ForgetNonces(WALL)])
    assert (disk.journal.memory().nonces, disk.journal.memory().floor) == ({"key:2": WALL + 1}, WALL)
    disk.full = True
    executor.carry_out([do.ForgetNonces(WALL + 1)])
    disk.full = False
    assert disk.journal.memory().nonces == {"key:2": WALL + 1}, "one too many does no harm"


def test_the_last_chance_to_store_is_at_the_end(config: Config, inbox: Inbox, disk: Disk, spool: Spool, tmp_path: Path) -> None:
    control = ControlServer(config.socket_path, lambda *_: None)
    executor = Executor(config, profile(), inbox, disk, spool, None, control)  # type: ignore[arg-type]
    disk.full = True
    executor.carry_out([do.Save(command())])
    disk.full = False
    control.close()
    executor.close()
    journal = Journal(tmp_path / "journal.db")
    assert journal.load() == [command()]
    journal.close()


def test_records_reach_the_spool(executor: Executor, spool: Spool) -> None:
    executor.carry_out([do.Record("event", "e", {"x": 1}), do.Log("info", ""), do.Record("measurement", "m", {"x": 2})])
    executor.carry_out([])
    assert [document["x"] for document in waiting(spool)] == [1, 2]


def test_records_before_a_first_state_that_cannot_be_stored_are_kept(executor: Executor, disk: Disk, spool: Spool) -> None:
    disk.full = True
    executor.carry_out([do.Record("event", "e", {"x": 1}), do.Save(command(), first=True), do.Record("event", "e", {"x": 2})])
    assert [document["x"] for document in waiting(spool)] == [1]


def test_the_last_known_status_is_kept(executor: Executor, config: Config) -> None:
    executor.carry_out([do.Remember({"state": "idle"})])
    assert msgspec.json.decode(config.status_path.read_bytes()) == {"state": "idle"}


def test_a_status_that_cannot_be_kept_is_a_warning(executor: Executor, config: Config, caplog: pytest.LogCaptureFixture) -> None:
    config.status_path.mkdir()
    executor.carry_out([do.Remember({"state": "idle"}), do.Quit()])
    assert "the last known status cannot be kept" in caplog.text
    assert executor.done


STATUS = AgentBench().agent.status(Now(0.0, 1000.0))


def test_the_figures_for_prometheus_can_be_read_by_another_user(executor: Executor, config: Config, tmp_path: Path) -> None:
    path = tmp_path / "agent.prom"
    executor._config = msgspec.structs.replace(config, prometheus=PrometheusSection(str(path)))
    for degrees in (50.0, 51.0):
        executor.carry_out([do.Expose(STATUS, {"temperature_c": degrees}, 1.0)])
        assert parse(path.read_text())["reconvene_agent_board_temperature_celsius"].value == degrees
    assert path.stat().st_mode & 0o777 == 0o644
    assert not list(tmp_path.glob(".agent.prom*"))


def test_figures_that_cannot_be_written_are_one_line_until_they_can_be(
    executor: Executor, config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "missing" / "agent.prom"
    executor._config = msgspec.structs.replace(config, prometheus=PrometheusSection(str(path)))
    expose = [do.Expose(STATUS, {}, 1.0)]
    for _ in range(3):
        executor.carry_out(expose)
    assert [record.getMessage().count("\n") for record in caplog.records] == [0]
    assert str(path.parent) in caplog.text
    path.parent.mkdir()
    executor.carry_out(expose)
    assert path.exists()
    with tiny_disk(path.parent, "16k") as full:
        fill(full)
        for _ in range(2):
            executor.carry_out(expose)
        assert [name.name for name in full.iterdir()] == ["ballast"]
    assert len(caplog.records) == 2
    assert "no space left" in caplog.text


def test_what_home_assistant_was_told_is_kept_on_disk(
    executor: Executor, config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    executor.carry_out([do.KeepDiscovered(("a", "b"))])
    assert discovered.kept(config.discovered_path) == ("a", "b")
    executor.carry_out([do.KeepDiscovered(())])
    assert not config.discovered_path.exists()
    config.discovered_path.mkdir()
    executor.carry_out([do.KeepDiscovered(("a",))])
    assert "cannot be kept" in caplog.text


def test_what_a_job_left_is_removed(executor: Executor, config: Config) -> None:
    folder = launch.work_folder(config, "k")
    (folder / "deep").mkdir(parents=True)
    executor.carry_out([do.Clean("k"), do.Clean("k"), do.Clean("never was")])
    assert not folder.exists()


def test_the_release_is_looked_up(executor: Executor, inbox: Inbox) -> None:
    executor.carry_out([do.ReadRelease()])
    assert inbox.get(0) == events.ReleaseRead(None)


@pytest.mark.parametrize(("level", "number"), [("debug", 10), ("info", 20), ("warning", 30), ("error", 40)])
def test_words_reach_the_log(executor: Executor, caplog: pytest.LogCaptureFixture, level: Any, number: int) -> None:
    with caplog.at_level(logging.DEBUG, "reconvene_agent"):
        executor.carry_out([do.Log(level, "100% sure")])
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [(number, "100% sure")]


def raising(error: Exception) -> Callable[..., Any]:
    def fail(*_: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), PermissionError(13, "Permission denied")])
def test_a_launch_that_fails_in_any_way_is_told(
    executor: Executor, inbox: Inbox, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(launch, "request_for", raising(error))
    executor.carry_out([do.Launch(command())])
    failure = inbox.get(0)
    assert isinstance(failure, events.LaunchFailed)
    assert (failure.key, failure.code) == (command().key, ErrorCode.INTERNAL)
    assert str(error.args[1]) in failure.detail


def test_a_bundle_that_is_not_there_is_told(executor: Executor, inbox: Inbox) -> None:
    executor.carry_out([do.Launch(msgspec.structs.replace(command(), request={"args": {"bundle": "x"}}))])
    failure = inbox.get(0)
    assert isinstance(failure, events.LaunchFailed)
    assert failure.code is ErrorCode.BAD_BUNDLE


def test_without_a_worker_there_is_nobody_to_stop(executor: Executor) -> None:
    executor.carry_out([do.AskWorker("cancel"), do.EndWorker(hard=False), do.EndWorker(hard=True)])


def test_data_are_counted_in_a_thread_of_its_own(executor: Executor, config: Config, inbox: Inbox, tmp_path: Path) -> None:
    executor.carry_out([do.CountData()])  # there are none yet, and nothing is heard of it
    executor._counting.join(10.0)  # type: ignore[union-attr]
    (config.data_dir / "cat").mkdir(parents=True)
    (config.data_dir / "cat/1.png").write_bytes(b"12345")
    executor.carry_out([do.CountData()])
    event = inbox.get(10.0)
    assert isinstance(event, events.DataCounted)
    assert (event.census.files, event.census.bytes) == (1, 5)


def test_data_are_not_counted_twice_at_a_time(executor: Executor, inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    counted, go_on = threading.Event(), threading.Event()

    def slowly(_path: Path) -> Census:
        assert not counted.is_set()
        counted.set()
        assert go_on.wait(10.0)
        return Census(1, 2, "x")

    monkeypatch.setattr(census, "take", slowly)
    executor.carry_out([do.CountData()])
    assert counted.wait(10.0)
    executor.carry_out([do.CountData()])
    go_on.set()
    assert inbox.get(10.0) == events.DataCounted(Census(1, 2, "x"))
    assert inbox.get(0.0) is None


def test_a_look_at_the_board_comes_back(
    executor: Executor, inbox: Inbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    zone = tmp_path / "sys/class/thermal/thermal_zone0"
    zone.mkdir(parents=True)
    (zone / "temp").write_text("61500\n")
    monkeypatch.setattr("reconvene_agent.daemon.service.executor.HOST", tmp_path)
    executor.carry_out([do.Look()])
    assert inbox.get(0) == events.Looked(Strain(61.5, None))


def test_a_pause_is_kept_on_disk(executor: Executor, config: Config) -> None:
    executor.carry_out([do.KeepPause("pause/1")])
    assert pause_order.kept(config.pause_path) == "pause/1"
    executor.carry_out([do.KeepPause("")])
    assert pause_order.kept(config.pause_path) == ""


def test_a_pause_that_cannot_be_kept_is_an_error_in_the_log(
    executor: Executor, config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    config.pause_path.mkdir()
    executor.carry_out([do.KeepPause("pause/1"), do.KeepPause("")])
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
    assert "that work is paused cannot be kept over a restart" in caplog.records[0].getMessage()


def test_words_carry_what_they_are_about(executor: Executor, caplog: pytest.LogCaptureFixture) -> None:
    executor.carry_out([do.Log("error", "it broke", "plan/1"), do.Log("error", "all is well")])
    assert [record.about for record in caplog.records] == ["plan/1", ""]  # type: ignore[attr-defined]


def test_a_journaled_restart_comes_back_and_then_is_made(executor: Executor, inbox: Inbox) -> None:
    executor.carry_out([do.AskRestart("restart/1")])
    assert inbox.get(0) == events.RestartAsked("restart/1")
    executor.carry_out([do.Quit(again=True)])
    assert (executor.done, executor.again) == (True, True)


def test_the_log_comes_back_in_parts(executor: Executor, inbox: Inbox, tmp_path: Path) -> None:
    line = {"level": "info", "text": "x", "command": "1"}
    (tmp_path / "log.jsonl").write_bytes(msgspec.json.encode(line))
    executor.carry_out([do.ReadLog("log_upload/1", 5, "info", "1"), do.ReadLog("log_upload/2", 5, "info", "2")])
    assert inbox.get(0) == events.LogRead("log_upload/1", [[line]])
    assert inbox.get(0) == events.LogRead("log_upload/2", [])


def test_changed_settings_come_back_with_what_became_of_them(executor: Executor, inbox: Inbox) -> None:
    executor.carry_out([do.UpdateSettings("config_update/1", "config_update/1 1.0", {"training.epochs": 3}, 60.0)])
    event = inbox.get(0)
    assert isinstance(event, events.SettingsUpdated)
    assert "state_dir was changed" in event.detail, "its file is none of this test's"
    executor.carry_out([do.SettleSettings(True)])
    assert inbox.get(0) == events.SettingsSettled(Overlay())
