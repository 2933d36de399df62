"""``fleet``: a real broker, real agents, and many pretended ones."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import termios
from pathlib import Path
from typing import Any

import pytest

from reconvene_agent.core import keys
from reconvene_agent.core.topics import Topics
from support.brokers import Bus, Mosquitto, free_port, retained
from support.certificates import authority, certificate
from support.commandline import SOON, Cli, FleetCli, Running, configured
from support.daemons import Daemon
from support.pretenders import EXECUTING, Pretenders
from support.signatures import SEED, trusting

JSON_DOCS = Path(__file__).parents[3] / "docs/json.md"


# --- ls ----------------------------------------------------------------------------------------------------------------------


def test_real_agents_are_listed(agents: list[Daemon], fleet: FleetCli) -> None:
    told = fleet("ls")
    assert told.code == 0
    lines = told.out.splitlines()
    assert lines[0].split() == ["device", "state", "step", "done", "model", "accuracy", "p95", "ms", "last", "seen"]
    assert re.fullmatch(r"board-1 +idle +\d+ s ago *", lines[1])
    assert re.fullmatch(r"board-2 +idle +\d+ s ago *", lines[2])
    assert told.err == "2 devices: 2 up, 0 down, 0 busy\n"


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_the_list_as_json(protocol: str, agents: list[Daemon], fleet: FleetCli) -> None:
    document = fleet("ls", "--json", "--protocol", protocol).document
    assert {name: document[name] for name in ("devices", "up", "down", "busy", "senseless")} == {
        "devices": 2, "up": 2, "down": 0, "busy": 0, "senseless": 0,
    }  # fmt: skip
    first = document["list"][0]
    assert set(first) == {"device", "up", "state", "version", "job", "model", "alarms", "last_seen"}
    assert (first["device"], first["state"], first["model"]) == ("board-1", "idle", None)


def test_a_thousand_devices_and_those_that_talk_nonsense(own: Mosquitto, cli: Cli) -> None:
    with Pretenders(own.port, 1000), Bus(own.port) as bus:
        bus.send(Topics("te", "evil").health, b'{"status":"up","state":"\\u001b[2J\xc2\x9b31m"}')
        bus.send(Topics("te", "mad").twin("model"), b"x" * 300_000)
        bus.send(Topics("te", "odd").alarm("hot"), b"[1]")
        bus.send(Topics("te", "p7").health, {"status": "down", "session": "s"})
        bus.send(Topics("te", "p8").command("specialize", "1"), {"status": "executing", "rev": 1, **EXECUTING})
        bus.send(Topics("te", "p8").health, {"status": "up", "state": "specialize"})
        told = cli("fleet", "ls", "--broker", own.url, *SOON)
        document = cli("fleet", "ls", "--json", "--broker", own.url, *SOON).document
    assert told.err == "1001 devices: 1000 up, 1 down, 1 busy, 2 messages without sense\n"
    assert all(letter.isprintable() for line in told.out.splitlines() for letter in line)
    rows = {line.split()[0]: line for line in told.out.splitlines()}
    assert rows["evil"].split()[1] == "?[2J?31m"
    assert re.fullmatch(r"p7 +down +r0001-00000000 +90\.0% +2\.00 .*", rows["p7"])
    assert re.fullmatch(r"p8 +specialize +train +50% +r0001-00000000 .*", rows["p8"])
    assert (document["devices"], document["senseless"], len(document["list"])) == (1001, 2, 1001)


def test_the_live_list_follows(own: Mosquitto) -> None:
    words = ("fleet", "ls", "--watch", "--json", "--broker", own.url, *SOON)
    with Pretenders(own.port, 1), Bus(own.port) as bus, Running(*words) as running:
        running.wait_line('"up":1', "out")
        bus.send(Topics("te", "p0").health, {"status": "down", "session": "s"})
        running.wait_line('"down":1', "out")
        running.signal(signal.SIGINT)
        ended = running.end()
    assert (ended.code, ended.err) == (0, "")


def test_on_a_terminal_the_list_is_live_and_fits(own: Mosquitto) -> None:
    seen, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 12, 120, 0, 0))
    shown = b""
    with Pretenders(own.port, 30), Running("fleet", "ls", "--broker", own.url, *SOON, stdout=terminal) as running:
        os.close(terminal)
        while shown.count(b"\033[2J") < 3:
            shown += os.read(seen, 65536)
        running.signal(signal.SIGINT)
        ended = running.end()
    os.close(seen)
    screen = shown.split(b"\033[2J\033[H")[1].decode()
    assert ended.code == 0
    assert len(screen.splitlines()) <= 12
    assert "30 devices: 30 up, 0 down, 0 busy; 23 more" in screen


# --- send, clear, watch ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_command_is_sent_and_its_end_waited_for(protocol: str, agents: list[Daemon], fleet: FleetCli) -> None:
    ended = fleet("send", "ping", "board-1", "board-2", "--wait", "--json", "--protocol", protocol)
    assert ended.code == 0
    document = ended.document
    assert document["op"] == "ping"
    assert re.fullmatch(r"send-\d{8}T\d{6}-[0-9a-f]{6}", document["id"])
    assert [entry["device"] for entry in document["devices"]] == ["board-1", "board-2"]
    assert all(entry["status"] == "successful" and entry["result"]["state"] == "idle" for entry in document["devices"])


def test_a_failure_has_its_own_exit_code_and_line(agents: list[Daemon], fleet: FleetCli) -> None:
    ended = fleet("send", "plan", "board-1", "--args", '{"bundle":"absent"}', "--wait")
    assert ended.code == 4
    assert ended.out.startswith("board-1: failed: BAD_BUNDLE: there is no readable bundle 'absent' in ")
    assert re.search(r"^board-1: executing probe 0%$", ended.err, re.MULTILINE)


def test_an_id_that_was_used_for_something_else_is_refused_by_the_agent(agents: list[Daemon], fleet: FleetCli) -> None:
    assert fleet("send", "ping", "board-1", "--id", "mine", "--wait").code == 0
    ended = fleet("send", "ping", "board-1", "--id", "mine", "--wait", "--json")
    assert ended.code == 2
    assert ended.document["devices"][0]["error"]["code"] == "ID_REUSED"


def test_nobody_answers_and_the_command_is_taken_back(broker: Mosquitto, fleet: FleetCli) -> None:
    ended = fleet("send", "ping", "absent", "--id", "1", "--expires", 60, "--wait", "--timeout", 0.3)
    assert (ended.code, ended.out) == (10, "absent: no answer\n")
    assert "'fleet clear ping 1 DEVICE' takes it back" in ended.err
    topic = Topics("te", "absent").command("ping", "1")
    kept = retained(broker.port, topic)
    assert kept is not None
    assert set(kept.json) == {"status", "args", "issued_at", "requester", "expires_at"}
    cleared = fleet("clear", "ping", "1", "absent")
    assert (cleared.code, cleared.out) == (0, "ping/1 is cleared on absent; what has begun goes on\n")
    assert retained(broker.port, topic) is None


def test_one_device_is_watched(agents: list[Daemon], broker: Mosquitto, fleet: FleetCli) -> None:
    with Running("fleet", "watch", "board-1", "--broker", broker.url) as running:
        running.wait_line("status/health              status up", "out")
        running.wait_line("m/system                   cpu_percent", "out")
        fleet("send", "ping", "board-1", "--id", "watched")
        running.wait_line("cmd/ping/watched           successful", "out")
        running.signal(signal.SIGINT)
        ended = running.end()
    assert (ended.code, ended.err) == (0, "")
    assert all(re.match(r"\d\d:\d\d:\d\d  \S", line) for line in ended.out.splitlines())
    assert re.search(r"cmd/ping/watched +init by \S+@", ended.out)


WRONG: dict[str, tuple[tuple[str, ...], str]] = {
    "an unknown operation": (("send", "pin", "b1"), "operation 'pin' is not known; there are: specialize, plan,"),
    "an argument that there is not": (("send", "ping", "b1", "--args", '{"x":1}'), "wrong arguments: Object contains unknown"),
    "no JSON": (("send", "ping", "b1", "--args", "x"), "--args must be a JSON object"),
    "no device id": (("send", "ping", "b/1"), "'b/1' is no device id"),
    "a wildcard": (("watch", "+"), "'+' is no device id"),
    "no command id": (("send", "ping", "b1", "--id", "a b"), "'a b' is no command id"),
    "no time": (("send", "ping", "b1", "--expires", "0"), "must be more than 0 seconds"),
    "no share": (("rollout", "ping", "b1", "--canary", "5x"), "'5x' is neither a number of devices nor a percentage"),
    "no devices": (("rollout", "ping"), "name devices, or take --all"),
    "devices and all": (("rollout", "ping", "b1", "--all"), "name devices or take --all, not both"),
    "nothing": (("rollout",), "name the operation, or a state to --resume"),
    "resuming otherwise": (("rollout", "--resume", "x", "--canary", "1"), "only --abort-over, --timeout and --key can be"),
    "no state": (("rollout", "--resume", "absent"), "absent: no state of a rollout can be read: No such file"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_words_are_told_before_anything_is_sent(case: str, fleet: FleetCli) -> None:
    words, complaint = WRONG[case]
    ended = fleet(*words)
    assert (ended.code, ended.out) == (2, "")
    assert complaint in ended.complaint


def test_a_broker_that_is_not_there(cli: Cli) -> None:
    url = f"mqtt://127.0.0.1:{free_port()}"
    ended = cli("fleet", "ls", "--broker", url)
    assert ended.code == 3
    assert ended.complaint == f"{url.removeprefix('mqtt://')} cannot be reached: Connection refused"


def test_no_broker_at_all(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RECONVENE_FLEET_CONFIG", raising=False)
    ended = cli("fleet", "ls")
    assert ended.code == 2
    assert ended.complaint.startswith("no broker is configured: name one with --broker")


def test_the_broker_comes_from_a_file(broker: Mosquitto, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = configured(tmp_path, broker={"url": broker.url, "root": "elsewhere"})
    monkeypatch.setenv("RECONVENE_FLEET_CONFIG", str(file))
    assert cli("fleet", "ls", "--json", *SOON).document["devices"] == 0


@pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")  # paho's, where the broker hangs up
def test_mutual_tls(tmp_path: Path, cli: Cli) -> None:
    ca = authority(tmp_path, "ours")
    server, server_key = certificate(ca, "broker", "IP:127.0.0.1")
    mine, my_key = certificate(ca, "operator", "DNS:operator")
    settings = f"allow_anonymous true\ncafile {ca}\ncertfile {server}\nkeyfile {server_key}\nrequire_certificate true\n"
    with Mosquitto(tmp_path / "mutual", settings) as broker:
        words = ("--broker", broker.url.replace("mqtt", "mqtts"), *SOON, "--json", "--ca", ca)
        known = cli("fleet", "ls", *words, "--cert", mine, "--key-file", my_key)
        stranger = cli("fleet", "ls", *words)
    assert (known.code, known.document["devices"]) == (0, 0)
    assert stranger.code == 3


# --- documentation -----------------------------------------------------------------------------------------------------------


def test_what_is_signed_is_done_where_signatures_are_asked_for(own: Mosquitto, cli: Cli, tmp_path: Path) -> None:
    key, trusted = tmp_path / "fleet.pem", trusting(tmp_path / "trusted")
    keys.write_private(key, SEED)
    to = ("--broker", own.url, *SOON)
    with (
        Daemon(tmp_path / "1", own.url, security={"trusted_keys": str(trusted)}),
        Daemon(tmp_path / "2", own.url, agent={"device_id": "board-2"}, security={"trusted_keys": str(trusted)}),
    ):
        refused = cli("fleet", "send", "pause", "board-1", "board-2", "--wait", *to)
        assert refused.code == 11
        assert refused.out.count("BAD_SIGNATURE") == 2
        done = cli("fleet", "send", "pause", "board-1", "board-2", "--key", str(key), "--wait", *to)
        assert (done.code, done.out.count("successful")) == (0, 2)
        state = tmp_path / "rollout.json"
        rolled = cli("fleet", "rollout", "resume", "--all", "--key", str(key), "--state", str(state), *to)
        assert rolled.code == 0, rolled.err
        assert SEED.hex() not in state.read_text(), "the key's file is named, not told"


def test_every_key_of_the_documents_is_documented(agents: list[Daemon], fleet: FleetCli) -> None:
    section = re.search(r"^## fleet\n(.*?)(?=^## )", JSON_DOCS.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert section is not None
    documents = [
        fleet("ls", "--json").document,
        fleet("send", "ping", "board-1", "--wait", "--json").document,
        fleet("rollout", "plan", "board-1", "--args", '{"bundle":"absent"}', "--abort-over", 1, "--json").document,
    ]
    names = {name for document in documents for name in document}
    names |= {name for document in documents for part in ("list", "devices", "failures") for name in parts(document, part)}
    assert len(names) >= 30
    assert {name for name in names if not re.search(rf"\b{name}\b", section[1])} == set()


def parts(document: dict[str, Any], name: str) -> list[str]:
    """Return the keys of the entries in a list of a document."""
    entries = document.get(name)
    return [key for entry in entries for key in entry] if isinstance(entries, list) else []
