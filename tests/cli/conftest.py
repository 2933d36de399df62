"""What the tests of the command line share: it in this process, a bundle, a few digits, and one run that was disturbed twice."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from reconvene_agent.cli.main import main
from reconvene_agent.core import bundle as bundles
from support.commandline import Cli, Disturbed, Ended, Running, command
from support.pictures import DIGITS, digits
from support.values import manifest
from support.workers import honest


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Return what runs a command in this process, for all that does not hang on the process."""
    monkeypatch.setenv("RECONVENE_AGENT_CONFIG", os.devnull)

    def run(*words: object) -> Ended:
        capsys.readouterr()
        try:
            code = main([str(word) for word in words])
        except SystemExit as left:
            code = left.code  # type: ignore[assignment]
        return Ended(code, *capsys.readouterr())

    return run


@pytest.fixture
def stand_in(tmp_path: Path) -> Callable[[str], Path]:
    """Return what writes a configuration whose worker does ``body`` in the place of the heavy operations."""

    def write(body: str, **limits: float) -> Path:
        python = honest(tmp_path / "stand-in", body)
        lines = [f"{name} = {value}" for name, value in limits.items()]
        config = tmp_path / "stand-in.toml"
        config.write_text("\n".join(["[worker]", f'python = "{python}"', *lines, ""]))
        return config

    return write


@pytest.fixture
def answering(stand_in: Callable[[str], Path], tmp_path: Path) -> Callable[[dict[str, Any]], Path]:
    """Return what writes a configuration whose worker answers with a document: for what is printed of it."""

    def write(document: dict[str, Any]) -> Path:
        return stand_in(f"return {document!r}")

    return write


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bundle that ships its seed alone: resnet20 for the digits."""
    folder = tmp_path_factory.mktemp("bundles") / "ours"
    folder.mkdir()
    bundles.write_manifest(folder, manifest())
    return folder


class Prepared(NamedTuple):
    """What several tests look at; it takes its time, so all of it is started at once."""

    weighty: Ended
    planned: Ended
    pruned: Ended


@pytest.fixture(scope="session")
def prepared(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp("prepared")
    shape = ("--model", "resnet20", "--input", "1x8x8", "--classes", 10, "--seed", 7)
    limits = ("--sparsities", 0.5, 0.9, "--model-mb", 0.25, "--latency-ms", 10_000)
    running = (
        Running("bundle", "create", folder / "bundles/weighty", *shape, "--weights", "--json"),
        Running("plan", bundle, *limits, "--threads", 1, "--json"),
        Running("prune", bundle, "--sparsity", 0.9, "--out", folder / "small", "--threads", 1, "--json"),
    )
    return Prepared(*(each.end() for each in running))


@pytest.fixture(scope="session")
def weighty(prepared: Prepared) -> Ended:
    """Return how the command ended that made a bundle with weights; its document names the folder."""
    return prepared.weighty


@pytest.fixture(scope="session")
def planned(prepared: Prepared) -> Ended:
    """Return how a plan ended in which the smaller of two candidates fits."""
    return prepared.planned


@pytest.fixture(scope="session")
def pruned(prepared: Prepared) -> Ended:
    """Return how a pruning of the bundle ended; its document names the folder."""
    return prepared.pruned


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return some of the shipped digits as local data."""
    x, y = digits(900)
    path = tmp_path_factory.mktemp("data") / "digits.npz"
    np.savez(path, x=x, y=y)
    return path


@pytest.fixture(scope="session")
def disturbed(bundle: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Disturbed:
    out = tmp_path_factory.mktemp("out") / "models"
    words = ("specialize", "--bundle", bundle, "--data", data, "--out", out, "--sparsity", 0.9)
    words += ("--epochs", 3, "--threads", 1, "--json")

    def part(line: str, number: signal.Signals) -> Ended:
        with Running(*words) as running:
            running.wait_line(line)
            running.signal(number)
            return running.end()

    first = part("epoch 1/3:", signal.SIGINT)
    left = sorted(path.name for path in out.iterdir())
    return Disturbed(first, part("epoch 2/3:", signal.SIGTERM), command(*words), out, left)


@pytest.fixture(scope="session")
def released(disturbed: Disturbed) -> Path:
    """Return a models folder with one release."""
    assert disturbed.third.code == 0, disturbed.third.err
    return disturbed.out


@pytest.fixture(scope="session")
def benched(bundle: Path, released: Path) -> Ended:
    return command("bench", bundle, released, "--seconds", 0.05, "--threads", 1, "--json")


@pytest.fixture(scope="session")
def predicted(released: Path) -> Ended:
    return command("predict", DIGITS.with_name("3.png"), "/nowhere.png", "--model", released, "--json")
