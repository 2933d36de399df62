"""The real daemon as a process of its own, on a state folder of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import psutil
import tomli_w

from reconvene_agent.core import bundle
from reconvene_agent.core.errors import AgentError
from reconvene_agent.core.topics import Topics
from reconvene_agent.daemon.service.control import ask_status
from support.brokers import Bus, Message
from support.values import manifest
from support.waiting import until

TOPICS = Topics("te", "board-1")
START_S = 20.0


# The daemon, but the strain on the board is that below a folder which stands for ``/``, and looked at often.
_ON_A_BOARD = """
import sys
from pathlib import Path
from reconvene_agent.daemon.service import lean
lean.postpone_unused()
from reconvene_agent.daemon import __main__ as entry
from reconvene_agent.daemon.commands import paused
from reconvene_agent.daemon.service import executor, loop
executor.HOST = loop.HOST = Path(sys.argv[1])
paused.LOOK_EVERY_S = 0.1
sys.exit(entry.main(sys.argv[2:]))
"""


# The daemon, but it tries again soon when there is no broker.
IMPATIENT = """
import sys
from reconvene_agent.daemon.service import lean
lean.postpone_unused()
from reconvene_agent.daemon import __main__ as entry
from reconvene_agent.daemon.broker import backoff
backoff.BASE_S, backoff.CAP_S = 0.1, 0.2
sys.exit(entry.main(sys.argv[1:]))
"""


class StrainedBoard:
    """The files of a Raspberry Pi that tell how hot it is and whether its supply suffices."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._temperature = root / "sys/class/thermal/thermal_zone0/temp"
        self._throttled = root / "sys/devices/platform/soc/soc:firmware/get_throttled"
        for file in (self._temperature, self._throttled):
            file.parent.mkdir(parents=True)
        self._temperature.with_name("type").write_text("cpu-thermal\n")
        self.fares(50.0)

    def fares(self, degrees: float, under_voltage: bool = False, throttled: bool = False) -> None:
        """Let it be so hot, in degrees Celsius, its supply suffice or not, and its clocks be held down or not."""
        flags = under_voltage | throttled << 2
        for file, text in ((self._temperature, f"{degrees * 1000:.0f}\n"), (self._throttled, f"{flags:x}\n")):
            aside = file.with_name("new")
            aside.write_text(text)
            aside.replace(file)

    @property
    def program(self) -> tuple[str, ...]:
        """What runs a daemon on this board."""
        return ("-c", _ON_A_BOARD, str(self.root))


class Daemon:
    """One agent: its folder, with a bundle and data both called ``ours``, its configuration, and its process if it runs."""

    def __init__(self, folder: Path, broker_url: str = "", python: str = "", **settings: dict[str, Any]) -> None:
        self.state = folder / "state"
        for name in ("bundles/ours", "data/ours"):
            (self.state / name).mkdir(parents=True, exist_ok=True)
        bundle.write_manifest(self.state / "bundles/ours", manifest())
        agent = {"device_id": "board-1", "state_dir": str(self.state), "trust_clock": True}
        document: dict[str, dict[str, Any]] = {
            "agent": agent | settings.pop("agent", {}),
            "broker": {"url": broker_url} | settings.pop("broker", {}),
            "worker": {"python": python} | settings.pop("worker", {}),
            "specialize": {"bundle": "ours", "data": "ours"},
            **settings,
        }
        self.config = folder / "config.toml"
        self.config.write_text(tomli_w.dumps(document))
        self.log_file = folder / "log"
        self.process: subprocess.Popen[bytes] | None = None
        self.program: tuple[str, ...] = ("-m", "reconvene_agent.daemon")

    @property
    def socket(self) -> Path:
        return self.state / "control.sock"

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def launch(self) -> subprocess.Popen[bytes]:
        """Start the process without waiting for it."""
        environment = {name: value for name, value in os.environ.items() if name not in ("JOURNAL_STREAM", "NOTIFY_SOCKET")}
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self.program, str(self.config)], stderr=log, cwd="/", env=environment
            )
        return self.process

    def start(self) -> Daemon:
        """Start the process and wait until it answers on its socket."""
        process = self.launch()

        def answers() -> bool:
            assert process.poll() is None, f"it left with {process.returncode}: {self.log}"
            try:
                return bool(self.status())
            except AgentError:
                return False

        until(answers, START_S)
        return self

    def status(self) -> dict[str, Any]:
        return ask_status(self.socket)

    def wait_state(self, state: str, seconds: float = 20.0) -> dict[str, Any]:
        """Return the status once it says this state."""

        def reached() -> dict[str, Any] | None:
            document = self.status()
            return document if document["state"] == state else None

        found = until(reached, seconds)
        assert found is not None
        return found

    def wait_step(self, step: str) -> dict[str, Any]:
        """Return the running job once it is at this step."""

        def reached() -> dict[str, Any] | None:
            job: dict[str, Any] | None = self.status()["job"]
            return job if job is not None and job["step"] == step else None

        found = until(reached)
        assert found is not None
        return found

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def workers(self) -> list[psutil.Process]:
        """Return the processes that the daemon has started."""
        return psutil.Process(self.pid).children(recursive=True)

    def stop(self, seconds: float = 20.0) -> int:
        """Send SIGTERM; return the exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(seconds)

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def __enter__(self) -> Daemon:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            left = self.workers()
            self.kill()
            for worker in left:
                with_luck(worker)


def with_luck(process: psutil.Process) -> None:
    """Kill a process if it is still there."""
    try:
        process.kill()
    except psutil.NoSuchProcess:
        pass


class Fleet(Bus):
    """The bus with the words of the command life cycle."""

    def order(self, label: str, args: dict[str, Any] | None = None, **fields: Any) -> None:
        """Send a command such as ``specialize/1``."""
        self.send(topic_of(label), {"status": "init", "args": {} if args is None else args, **fields})

    def wait_order(self, label: str, args: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
        """Send a command; return its end."""
        self.order(label, args, **fields)
        return self.wait_end(label)

    def states(self, label: str) -> list[dict[str, Any]]:
        """Return the states that the agent has published of a command, in order."""
        return [state for message in self.on(topic_of(label)) if (state := state_of(message))]

    def published(self) -> list[Message]:
        """Return what the agent has published, which is all but the requests."""
        return [message for message in self.seen if TOPICS.parse_command(message.topic) is None or state_of(message)]

    def wait_status(self, label: str, *statuses: str, seconds: float = 30.0, after: int = 0) -> dict[str, Any]:
        """Return the first state of a command with one of these statuses."""

        def wanted(message: Message) -> bool:
            return message.topic == topic_of(label) and state_of(message).get("status") in statuses

        document: dict[str, Any] = self.wait(wanted, seconds, after).json
        return document

    def wait_end(self, label: str, seconds: float = 30.0) -> dict[str, Any]:
        return self.wait_status(label, "successful", "failed", seconds=seconds)

    def wait_birth(self) -> None:
        """Wait until the agent has told that it is up."""
        self.wait(lambda message: message.topic == TOPICS.health and b'"up"' in message.payload)

    def ping(self, number: int | str) -> dict[str, Any]:
        """Let the agent answer a ping."""
        self.order(f"ping/{number}")
        result: dict[str, Any] = self.wait_end(f"ping/{number}")["result"]
        return result


def state_of(message: Message) -> dict[str, Any]:
    """Return a message as the state of a command; empty when it is none that the agent has published."""
    try:
        document: Any = message.json
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return document if isinstance(document, dict) and "rev" in document else {}


def topic_of(label: str) -> str:
    return TOPICS.command(*label.split("/"))
