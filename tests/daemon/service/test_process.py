from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import msgspec
import psutil
import pytest

from reconvene_agent.daemon.service.notify import Notifier
from support.brokers import HOST, free_port
from support.daemons import Daemon, Fleet
from support.waiting import until

HEAVY = ("torch", "numpy", "onnx", "onnxruntime", "onnxscript", "safetensors", "PIL", "rich")
# Shapes that the daemon publishes without having them as types, and what only those need who have switched it on.
UNUSED = (
    "reconvene_agent.core.contract.records",
    "reconvene_agent.core.contract.results",
    "reconvene_agent.core.signing",
    "reconvene_agent.daemon.broker.visit",
    "reconvene_agent.daemon.reporting.homeassistant",
    "reconvene_agent.daemon.reporting.prometheus",
    "reconvene_agent.daemon.security.certificate",
    "reconvene_agent.daemon.security.keyring",
    "reconvene_agent.daemon.storage.discovered",
    "reconvene_agent.daemon.worker.confinement",
    "reconvene_agent.cli",
    "nacl",
)


# --- the process ----------------------------------------------------------------------------------------------------------------


def test_the_daemon_holds_none_of_the_heavy_libraries(daemon: Daemon, fleet: Fleet, go: Path) -> None:
    go.touch()
    fleet.wait_birth()
    fleet.order("specialize/1")
    fleet.wait_end("specialize/1")
    daemon.status()
    mapped = {Path(line.split()[-1]) for line in Path(f"/proc/{daemon.pid}/maps").read_text().splitlines() if "/" in line}
    assert not [path for path in mapped if set(HEAVY) & set(path.parts) or path.name.startswith(("libtorch", "libonnx"))]
    assert [path for path in mapped if "msgspec" in path.parts], "what it does hold can be seen this way"


def test_the_daemons_modules_import_none_of_the_heavy_libraries() -> None:
    code = (
        "import sys; from reconvene_agent.daemon.service import lean; lean.postpone_unused();"
        "import reconvene_agent.daemon.service.loop, reconvene_agent.daemon.__main__;"
        f"print(sorted(set({HEAVY + UNUSED!r}) & sys.modules.keys()), 'paho.mqtt.client' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] True"


@pytest.mark.parametrize("name", HEAVY + UNUSED)
def test_what_must_not_be_loaded_is_called_so(name: str) -> None:
    assert find_spec(name) is not None, "a name of nothing is never loaded"


def test_its_memory_stays_small(daemon: Daemon, fleet: Fleet, go: Path) -> None:
    go.touch()
    fleet.wait_birth()
    for number in range(3):
        fleet.order(f"specialize/{number}")
        fleet.wait_end(f"specialize/{number}")
    assert psutil.Process(daemon.pid).memory_info().rss < 45e6


def test_what_it_postpones_works_when_it_is_wanted() -> None:
    code = (
        "import sys; from reconvene_agent.daemon.service import lean; lean.postpone_unused();"
        "import urllib.request; print(hasattr(urllib.request, 'urlopen'), hasattr(urllib.request, '__nothing__'));"
        "from urllib.request import getproxies; print(callable(getproxies)); import typing_extensions"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False", "True"]


def test_the_service_manager_hears_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        made = Daemon(tmp_path)
        environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"}
        with made.log_file.open("ab") as log:
            made.process = subprocess.Popen(
                [sys.executable, "-m", "reconvene_agent.daemon", str(made.config)], stderr=log, env=environment
            )
        try:
            assert manager.recv(100) == b"READY=1"
            assert [manager.recv(100) for _ in range(5)] == [b"WATCHDOG=1"] * 5
            made.process.terminate()
            words = set()
            while b"STOPPING=1" not in words:
                words.add(manager.recv(100))
            assert made.process.wait(10) == 0
        finally:
            made.kill()
        assert Notifier({}).interval_s is None


# --- the local socket -----------------------------------------------------------------------------------------------------------


def test_the_status_is_answered_while_there_is_no_broker(tmp_path: Path) -> None:
    with Daemon(tmp_path, f"mqtt://{HOST}:{free_port()}") as daemon:
        begun = time.monotonic()
        document = until(lambda: [found for found in [daemon.status()] if "refused" in found["broker"]["reason"]])[0]
        assert time.monotonic() - begun < 3
        assert document["broker"]["connected"] is False
        assert document["problems"] == [f"no broker: {document['broker']['reason']}"]
        assert daemon.log.count("no broker: ") == 1, "one clear line"
        assert "cannot be reached: Connection refused; next try in" in daemon.log
        assert stat.S_IMODE(daemon.socket.stat().st_mode) == 0o660


def test_without_a_configured_broker_it_just_works(tmp_path: Path) -> None:
    with Daemon(tmp_path) as daemon:
        assert daemon.status()["problems"] == []
        assert daemon.stop() == 0
    assert "no broker is configured" in daemon.log


def test_the_status_tells_what_runs(daemon: Daemon, fleet: Fleet) -> None:
    fleet.wait_birth()
    fleet.order("specialize/1")
    job = daemon.wait_step("train")
    assert (job["op"], job["id"], job["attempt"], job["note"]) == ("specialize", "1", 1, "train")
    document = daemon.status()
    assert (document["state"], document["device_id"]) == ("specialize", "board-1")
    assert document["broker"]["protocol"] == "5"
    assert document["device"]["memory"]["total_mb"] > 0


def test_the_last_known_status_stays_on_disk(daemon: Daemon, fleet: Fleet) -> None:
    fleet.wait_birth()
    assert daemon.stop() == 0
    assert msgspec.json.decode((daemon.state / "status.json").read_bytes())["state"] == "stopped"
    assert not daemon.socket.exists()
