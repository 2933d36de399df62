"""The folder in which the demo plays: a bundle, the digits, the agent's configuration; and the agent's process."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType

import msgspec
from msgspec import Struct

from reconvene_agent.cli.demo.broker import PROTOCOL
from reconvene_agent.core import bundle
from reconvene_agent.core.bundle import BundleManifest, ModelSpec
from reconvene_agent.core.errors import AgentError

DIGITS = Path(__file__).parent / "digits"
SPEC = ModelSpec("vgg16", (1, 8, 8), 10)
DEVICE_ID = "demo-board"
STOP_TIMEOUT_S = 15.0


class Stage(Struct, frozen=True):
    """Where everything lies below one folder."""

    folder: Path

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def config(self) -> Path:
        return self.folder / "config.toml"

    @property
    def bundle(self) -> Path:
        return self.state / "bundles" / "digits-vgg16"

    @property
    def data(self) -> Path:
        return self.state / "data" / "digits.npz"

    @property
    def models(self) -> Path:
        return self.state / "models"

    @property
    def log(self) -> Path:
        return self.folder / "agent.log"

    def build(self, broker_url: str) -> None:
        """Make the folder: ship the bundle, lay out the data, write the configuration."""
        for part in (self.bundle, self.data.parent):
            part.mkdir(parents=True)
        labels = tuple(str(digit) for digit in range(SPEC.classes))
        bundle.write_manifest(self.bundle, BundleManifest(bundle.FORMAT, SPEC, seed=0, labels=labels))
        for name in ("digits.npz", "3.png", "7.png", "LICENSE.md"):
            shutil.copy(DIGITS / name, self.data.parent / name)
        settings = {
            "agent": {"device_id": DEVICE_ID, "state_dir": str(self.state)},
            "broker": {"url": broker_url, "protocol": PROTOCOL},
            "telemetry": {"interval_s": 10.0},
        }
        self.config.write_bytes(msgspec.toml.encode(settings))


class AgentProcess:
    """The real daemon, as a process of its own, running while the ``with`` block does."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        with stage.log.open("wb") as log:
            # A session of its own: Ctrl-C in the terminal is for the demo, which then stops the agent in order.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "reconvene_agent.daemon", str(stage.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=stage.folder,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def check(self) -> None:
        """Raise if the agent is gone.

        Raises:
            AgentError: with the last line that it wrote.
        """
        if self._process.poll() is not None:
            lines = self._stage.log.read_text(errors="replace").splitlines()
            raise AgentError(f"the agent left with exit code {self._process.returncode}: {lines[-1] if lines else 'no word'}")

    def resident_mb(self) -> float:
        """Return the agent's resident memory in MiB."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        return 0.0

    def __enter__(self) -> AgentProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
