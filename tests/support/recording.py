"""Records docs/examples/conversation.jsonl anew: a real agent, a real run on the shipped digits, at a real Mosquitto.

Run it from the root of the repository: ``PYTHONPATH=tests .venv/bin/python -m support.recording``.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from reconvene_agent.cli.demo.stage import DIGITS
from reconvene_agent.core import bundle
from reconvene_agent.core.bundle import BundleManifest, ModelSpec
from support.brokers import Message, Mosquitto
from support.daemons import TOPICS, Daemon, Fleet

FILE = Path(__file__).parents[2] / "docs/examples/conversation.jsonl"
ARGS = {"bundle": "digits", "data": "digits.npz", "sparsity": 0.9, "training": {"epochs": 2, "batch": 64}}


def record(folder: Path) -> list[dict[str, Any]]:
    """Return everything that passes the broker from the birth of an agent to its end."""
    with Mosquitto(folder / "mosquitto") as broker, Fleet(broker.port) as fleet:
        began = time.monotonic()
        times: list[float] = []
        note = fleet._on_message

        def on_message(*words: Any) -> None:
            times.append(time.monotonic() - began)
            note(*words)

        fleet._client.on_message = on_message
        daemon = Daemon(folder, broker.url, telemetry={"interval_s": 5.0})
        manifest = BundleManifest(bundle.FORMAT, ModelSpec("resnet20", (1, 8, 8), 10), seed=0)
        (daemon.state / "bundles/digits").mkdir()
        bundle.write_manifest(daemon.state / "bundles/digits", manifest)
        shutil.copy(DIGITS / "digits.npz", daemon.state / "data/digits.npz")
        with daemon:
            fleet.wait_birth()
            issued = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            fleet.order("specialize/run-1", ARGS, issued_at=issued, requester="controller")
            fleet.wait_status("specialize/run-1", "executing")
            fleet.order("plan/run-2", {"bundle": "digits"}, issued_at=issued, requester="controller")
            fleet.wait_end("plan/run-2")
            fleet.wait_end("specialize/run-1", 600)
            fleet.order("ping/ping-1", issued_at=issued, requester="controller")
            fleet.wait_end("ping/ping-1")
            for label in ("specialize/run-1", "plan/run-2", "ping/ping-1"):
                fleet.send(TOPICS.command(*label.split("/")), b"")
            daemon.stop()
            fleet.wait(lambda message: message.topic == TOPICS.health and b'"down"' in message.payload)
        return [_line(at, message) for at, message in zip(times, fleet.seen, strict=False)]


def _line(at: float, message: Message) -> dict[str, Any]:
    document = message.json if message.payload else None
    commanded = message.topic.count("/") == 7 and (document is None or "rev" not in document)
    return {"at": round(at, 2), "from": "controller" if commanded else "agent", "topic": message.topic, "message": document}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        lines = record(Path(name))
        text = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
        FILE.parent.mkdir(exist_ok=True)
        FILE.write_bytes(text.replace(name.encode(), b"/var/lib/reconvene-agent"))
        print(f"{len(lines)} messages in {FILE}")
