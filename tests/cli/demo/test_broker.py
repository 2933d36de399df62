"""The demo's own broker, in a process of its own: there while the block lasts, gone afterwards."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from reconvene_agent.cli.demo.controller import Controller, Message
from reconvene_agent.core.topics import Topics
from support.brokers import HOST, listening
from support.commandline import ERROR, surroundings
from support.waiting import until

# Opens the broker and leaves the block at a line on stdin, in the way that the line says.
_BROKER = """
import sys, threading
from reconvene_agent.cli.demo.broker import EmbeddedBroker
try:
    with EmbeddedBroker() as broker:
        print(broker.url, flush=True)
        if "fail" in sys.stdin.readline():
            raise KeyboardInterrupt
except KeyboardInterrupt:
    print("stopped")
print(*sorted(thread.name for thread in threading.enumerate()), flush=True)
sys.stdin.readline()
"""
_TAKEN = """
from reconvene_agent.cli.demo.broker import EmbeddedBroker
from reconvene_agent.core.errors import AgentError
with EmbeddedBroker() as first:
    second = EmbeddedBroker()
    second.port = first.port
    try:
        second.__enter__()
    except AgentError as error:
        print(error)
"""
_MISSING = """
import sys
sys.modules["amqtt.broker"] = None
from reconvene_agent.cli.main import main
sys.exit(main(["demo", "--out", sys.argv[1] + "/result"]))
"""


@contextmanager
def broker() -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run the broker; yield its process, which takes lines, and its port."""
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", _BROKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            assert url.startswith(f"mqtt://{HOST}:")
            yield process, int(url.rpartition(":")[2])
        finally:
            process.kill()


def told(process: subprocess.Popen[str], line: str) -> str:
    """Tell the process something; return what it answers."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def test_it_carries_messages() -> None:
    with broker() as (_, port):
        controller = Controller(HOST, port, Topics("te", "board"))
        try:
            controller.connect(10)
            controller.send("ping", "1", {})
            heard: list[Message] = []
            answer = controller.hear_until(lambda _: True, heard.append, 10, lambda: None)
        finally:
            controller.close()
    assert (answer.topic, answer.document["status"]) == ("cmd/ping/1", "init")
    assert heard == [answer]


def test_it_is_gone_after_the_block() -> None:
    with broker() as (process, port):
        assert listening(port)
        assert told(process, "go") == "MainThread"
        assert not listening(port)


def test_it_is_gone_after_a_ctrl_c_in_the_block() -> None:
    with broker() as (process, port):
        assert told(process, "fail") == "stopped"
        until(lambda: not listening(port))


def test_a_port_that_is_taken_is_told() -> None:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", _TAKEN], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("the embedded broker does not start: ")
    assert "address already in use" in done.stdout
    assert "Traceback" not in done.stderr


def test_without_amqtt_the_demo_says_what_to_install(tmp_path: object) -> None:
    words = [sys.executable, "-c", _MISSING, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, env=surroundings(), check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"{ERROR}the demo needs its broker: pip install 'reconvene-agent[demo]'\n"
