from __future__ import annotations

from pathlib import Path

from reconvene_agent.core.messages import OPERATIONS
from support.brokers import Mosquitto, retained, wait_retained
from support.daemons import TOPICS, Daemon, Fleet, topic_of
from support.shelves import publish
from support.waiting import until


def test_a_whole_run_on_the_wire(daemon: Daemon, fleet: Fleet, go: Path) -> None:
    fleet.wait_birth()
    go.touch()
    fleet.order("specialize/1", {"sparsity": 0.9}, requester="me", **{"x-trace": [1, None]})
    last = fleet.wait_end("specialize/1")
    states = fleet.states("specialize/1")
    assert [state["status"] for state in states][:2] == ["scheduled", "executing"]
    assert {state["status"] for state in states[2:-1]} == {"executing"}
    revisions = [state["rev"] for state in states]
    assert revisions == sorted(set(revisions))
    progress = [state["progress"] for state in states]
    assert progress == sorted(progress)
    steps = list(dict.fromkeys(state["step"] for state in states if "step" in state))
    assert steps == ["probe", "plan", "prune", "train", "evaluate", "export", "promote"]
    assert (last["status"], last["progress"], last["attempt"]) == ("successful", 1.0, 1)
    assert last["result"]["data"] == str(daemon.state / "data/ours")
    assert all((state["requester"], state["x-trace"], state["args"]) == ("me", [1, None], {"sparsity": 0.9}) for state in states)


def states_of_health(fleet: Fleet) -> list[str]:
    """Return what the agent said it was doing, in order."""
    return [message.json["state"] for message in fleet.on(TOPICS.health) if b'"up"' in message.payload]


def test_what_else_the_fleet_hears(daemon: Daemon, fleet: Fleet, go: Path) -> None:
    fleet.wait_birth()
    go.touch()
    fleet.order("specialize/1")
    fleet.wait_end("specialize/1")
    epoch = fleet.wait_topic(TOPICS.event("epoch")).json
    assert (epoch["command"], epoch["accuracy"]) == ("specialize/1", 0.75)
    promoted = fleet.wait_topic(TOPICS.event("model_promoted")).json
    assert promoted["seq"] > epoch["seq"]
    assert promoted["boot_id"] == epoch["boot_id"]
    assert fleet.wait_topic(TOPICS.measurement("training")).json["loss"] == 0.5
    assert fleet.wait_topic(TOPICS.measurement("inference")).json["latency_ms_p95"] == 2.0
    assert fleet.wait_topic(TOPICS.measurement("system")).json["agent_rss_mb"] > 0
    last = fleet.wait_topic(TOPICS.twin("last_result")).json
    assert (last["id"], last["status"]) == ("1", "successful")
    until(lambda: states_of_health(fleet) == ["idle", "specialize", "idle"])


def test_what_a_newcomer_finds_retained(daemon: Daemon, fleet: Fleet, broker: Mosquitto) -> None:
    fleet.wait_birth()
    fleet.ping(1)
    for op in OPERATIONS:
        fleet.wait_topic(TOPICS.capability(op))
    registration = wait_retained(broker.port, TOPICS.service)
    assert registration.json == {"@type": "service", "name": "reconvene-agent", "type": "ml-agent"}
    for topic in (TOPICS.health, TOPICS.twin("hardware"), TOPICS.twin("config"), TOPICS.capability("plan"), topic_of("ping/1")):
        wait_retained(broker.port, topic)
    hardware = wait_retained(broker.port, TOPICS.twin("hardware"))
    assert hardware.json["cores"] >= 1
    assert retained(broker.port, TOPICS.measurement("system")) is None


def test_the_deployed_model_is_part_of_the_twin(tmp_path: Path, fleet: Fleet, broker: Mosquitto) -> None:
    made = Daemon(tmp_path, broker.url)
    version = publish(made.state / "models", 1)
    with made:
        twin = fleet.wait(lambda message: message.topic == TOPICS.twin("model") and message.payload != b"")
        assert twin.json["version"] == version
        assert until(lambda: made.status()["release"])["sparsity"] == 0.9


def test_a_plan_alone(daemon: Daemon, fleet: Fleet, go: Path) -> None:
    go.touch()
    fleet.wait_birth()
    fleet.order("plan/1")
    assert fleet.wait_end("plan/1")["status"] == "successful"


def test_a_busy_agent_says_so_and_answers_pings(daemon: Daemon, fleet: Fleet, go: Path) -> None:
    fleet.wait_birth()
    fleet.order("specialize/1")
    daemon.wait_step("train")
    fleet.order("plan/2")
    assert fleet.wait_status("plan/2", "scheduled")["reason"] == "waits behind specialize/1"
    fleet.order("plan/3")
    assert fleet.wait_end("plan/3")["error"]["code"] == "BUSY"
    assert fleet.ping(1)["state"] == "specialize"
    go.touch()
    assert fleet.wait_end("specialize/1")["status"] == "successful"
    assert fleet.wait_end("plan/2")["status"] == "successful"


def test_cancel_in_the_middle_of_training(daemon: Daemon, fleet: Fleet) -> None:
    fleet.wait_birth()
    fleet.order("specialize/1")
    daemon.wait_step("train")
    fleet.order("cancel/1", {"id": "1"})
    assert fleet.wait_end("cancel/1")["result"] == {"canceled": "specialize/1"}
    assert fleet.wait_end("specialize/1")["error"]["code"] == "CANCELED"
    assert daemon.workers() == []
    assert not list((daemon.state / "jobs").glob("*")) if (daemon.state / "jobs").exists() else True


def test_a_timeout_in_the_middle_of_training(daemon: Daemon, fleet: Fleet) -> None:
    fleet.wait_birth()
    fleet.order("specialize/1", timeout_s=1)
    assert fleet.wait_end("specialize/1")["error"]["code"] == "TIMED_OUT"


def test_the_same_command_again_is_answered_and_not_done_again(daemon: Daemon, fleet: Fleet, go: Path) -> None:
    go.touch()
    fleet.wait_birth()
    fleet.order("specialize/1")
    first = fleet.wait_end("specialize/1")
    seen = len(fleet.seen)
    fleet.order("specialize/1")
    assert fleet.wait_status("specialize/1", "successful", after=seen) == first
    seen = len(fleet.seen)
    fleet.order("specialize/1", {"sparsity": 0.1})
    assert fleet.wait_status("specialize/1", "failed", after=seen)["error"]["code"] == "ID_REUSED"
    assert fleet.wait_status("specialize/1", "successful", after=seen) == first


REFUSALS: list[tuple[str, bytes, str]] = [
    ("specialize/r1", b"{", "INVALID_JSON"),
    ("specialize/r2", b'{"status":"\xff"}', "INVALID_JSON"),
    ("specialize/r3", b'{"a":' * 30_000, "INVALID_JSON"),
    ("specialize/r4", b"[]", "SCHEMA"),
    ("specialize/r5", b'{"status":"init","args":{"sparsity":"much"}}', "SCHEMA"),
    ("specialize/r6", b'{"status":"init","args":{"bundle":"../../etc"}}', "SCHEMA"),
    ("specialize/r7", b'{"status":"init","args":{"bundle":"a\\u0000b"}}', "SCHEMA"),
    ("specialize/r8", b'{"status":"init","args":{"data":"a\\u0000b"}}', "SCHEMA"),
    ("specialize/r9", ('{"status":"init","args":{"bundle":"' + "é" * 255 + '"}}').encode(), "BAD_BUNDLE"),
    ("specialize/r10", b'{"status":"init","args":{"bundle":"missing"}}', "BAD_BUNDLE"),
    ("specialize/r11", b'{"status":"init","args":{"data":"missing"}}', "NO_DATA"),
    ("specialize/r12", b'{"status":"init","expires_at":1}', "EXPIRED"),
    ("specialize/r13", b'{"status":"init","filler":"' + b"x" * 300_000 + b'"}', "SCHEMA"),
    ("teleport/r14", b'{"status":"init"}', "UNSUPPORTED"),
]


def test_what_cannot_be_done_is_refused_with_its_code(daemon: Daemon, fleet: Fleet) -> None:
    fleet.wait_birth()
    for label, payload, _ in REFUSALS:
        fleet.send(topic_of(label), payload)
        assert fleet.wait_end(label)["error"]["code"], label
    assert {label: fleet.wait_end(label)["error"]["code"] for label, _, _ in REFUSALS} == {
        label: code for label, _, code in REFUSALS
    }
    assert fleet.ping("after")["state"] == "idle"


def test_a_command_whose_state_is_larger_than_a_message_may_be(daemon: Daemon, fleet: Fleet) -> None:
    fleet.wait_birth()
    fleet.order("ping/large", filler="x" * (256 * 1024 - 80))
    assert fleet.wait_end("ping/large")["status"] == "successful"
    fleet.ping("after")
    fleet.ping("again")
    assert len(fleet.states("ping/large")) == 1, "its own echo is not answered"


def test_a_flood_of_retained_commands_is_answered_one_by_one(tmp_path: Path, broker: Mosquitto, fleet: Fleet) -> None:
    labels = [f"ping/{number}" for number in range(700)]
    for label in labels:
        fleet.order(label)
    with Daemon(tmp_path, broker.url) as daemon:
        for label in labels:
            assert fleet.wait_end(label)["status"] == "successful"
        fleet.wait_birth()
        assert daemon.status()["state"] == "idle"
