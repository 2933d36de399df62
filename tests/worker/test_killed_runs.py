"""A run that is killed at random moments, again and again, ends with the very file of one that nothing disturbs."""

from __future__ import annotations

import multiprocessing
import random
import signal
from collections.abc import Iterator
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reconvene_agent.core.protocol import SpecializeRequest
from reconvene_agent.worker import pipeline
from reconvene_agent.worker.training import interval
from support.models import ModelSpec, shipped
from support.runs import Ear, archive, specialize_request

SPEC = ModelSpec("resnet20", (1, 8, 8), 10)
EPOCHS_PER_KILL = 4


@pytest.fixture(scope="module")
def processes() -> Iterator[ForkServerContext]:
    """Return what starts processes that have the libraries already: to load them takes longer than these runs."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    yield context
    # Other tests of this process count its children.
    forkserver._forkserver._stop()
    resource_tracker._resource_tracker._stop()


class Attempt:
    """A process that starts a run or goes on with it, and what is heard of it: one message whenever it reports."""

    def __init__(self, processes: ForkServerContext, request: SpecializeRequest, result: Path) -> None:
        self._heard, said = processes.Pipe(duplex=False)
        self._process = processes.Process(target=_run, args=(request, result, said))
        self._process.start()
        said.close()

    def kill_after(self, reports: int, seconds: float) -> int | None:
        """Kill it so many seconds after so many reports; return its exit code, another one if it was no longer at work."""
        try:
            for _ in range(reports):
                self._heard.recv_bytes()
        except EOFError:
            return self._exit_code()
        self._process.join(seconds)
        self._process.kill()
        return self._exit_code()

    def finish(self) -> int:
        """Let it come to its end; return how many reports it made."""
        reports = 0
        try:
            while True:
                self._heard.recv_bytes()
                reports += 1
        except EOFError:
            assert self._exit_code() == 0
            return reports

    def _exit_code(self) -> int | None:
        self._process.join()
        self._heard.close()
        return self._process.exitcode


def _run(request: SpecializeRequest, result: Path, said: Connection) -> None:
    # So short a run would be over before its second checkpoint was due.
    interval.SHARE = 0.5
    document = pipeline.specialize(request, Ear(lambda *_: said.send_bytes(b".")))
    result.write_bytes(msgspec.json.encode(document))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kills", [20, pytest.param(100, marks=pytest.mark.long)])
def test_a_run_killed_at_random_moments_ends_with_the_same_bits(processes: ForkServerContext, kills: int, tmp_path: Path) -> None:
    bundle = shipped(tmp_path / "bundle", SPEC)
    data = archive(tmp_path / "digits.npz", 300)

    def begin(name: str) -> Attempt:
        request = specialize_request(bundle, data, tmp_path / name, epochs=EPOCHS_PER_KILL * kills, ema=0.99)
        return Attempt(processes, request, tmp_path / f"{name}.json")

    def outcome(name: str) -> Any:
        return msgspec.json.decode((tmp_path / f"{name}.json").read_bytes())

    reports = begin("whole").finish()
    draw = random.Random(0)
    ends = [begin("parts").kill_after(draw.randrange(2 * reports // kills), draw.uniform(0.0, 0.05)) for _ in range(kills)]
    left = begin("parts").finish()
    assert ends.count(-signal.SIGKILL) >= 0.8 * kills, f"nearly every one is killed before it is done: {ends}"
    assert left < reports / 2, "what was done before was not lost"
    whole, parts = outcome("whole"), outcome("parts")
    assert parts["release"]["sha256"] == whole["release"]["sha256"]
    for what in ("accuracy", "best_epoch", "epochs"):
        assert parts["training"][what] == whole["training"][what]
