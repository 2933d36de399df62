from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconvene_agent.core import clock
from reconvene_agent.core.clock import Now, rfc3339
from reconvene_agent.core.config import HomeAssistantSection, SpecializeSection
from reconvene_agent.core.job import Command, Step
from reconvene_agent.core.protocol import Progress
from reconvene_agent.core.topics import Topics
from reconvene_agent.daemon import effects as do
from reconvene_agent.daemon import events
from reconvene_agent.daemon.agent import Agent
from reconvene_agent.daemon.reporting import announce, homeassistant
from reconvene_agent.daemon.reporting.homeassistant import PRESS_VALID_S, SPREAD_S, HomeAssistant
from reconvene_agent.daemon.reporting.identity import Identity
from support import homeassistant as theirs
from support.agents import CONFIG, IDENTITY, TOPICS, WALL, AgentBench
from support.values import release

SEEN = msgspec.structs.replace(
    CONFIG, homeassistant=HomeAssistantSection(discovery=True), specialize=SpecializeSection(bundle="b", data="d")
)
STATE = f"{TOPICS.service}/ha/state"
PRESSES = {op: f"{TOPICS.service}/ha/{op}" for op in ("specialize", "rollback")}
BIRTH = "homeassistant/status"


class Home(AgentBench):
    """An agent on the bench that Home Assistant is told of; ``held`` are the topics noted on disk."""

    def __init__(self, config: Any = SEEN, held: tuple[str, ...] = (), buttons: bool = True, share: float = 0.5) -> None:
        self.held = held
        self._buttons, self._share = buttons, share
        super().__init__(config)
        self.post(events.Started())

    def _make(self) -> Agent:
        agent = super()._make()
        self.home = HomeAssistant(IDENTITY, self.config, self.held, "Raspberry Pi 5", self._buttons, lambda: self._share)
        agent._home = self.home
        return agent

    def on(self, topic: str) -> list[bytes]:
        """Return what was published on a topic since the last ``forget``."""
        return [effect.payload for effect in self.done(do.Publish) if effect.topic == topic]

    @property
    def discovery(self) -> str:
        return self.home._config

    @property
    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = msgspec.json.decode(self.on(self.discovery)[-1])
        return document

    def press(self, op: str, wall: float) -> None:
        self.receive(PRESSES[op], msgspec.json.encode({"time": rfc3339(wall)}))

    def jobs(self, op: str) -> list[str]:
        return [label for label in self.journal if label.startswith(f"{op}/ha-")]


@pytest.fixture
def home() -> Home:
    made = Home()
    made.connect()
    return made


# --- what is announced --------------------------------------------------------------------------------------------------------


def test_home_assistant_takes_the_document(home: Home) -> None:
    theirs.check(home.discovery, home.document)
    assert home.document["device"]["model"] == "Raspberry Pi 5"
    assert set(home.document["components"]) == {
        *("state", "step", "progress", "accuracy", "latency", "sparsity", "model_size", "temperature", "memory"),
        *("specialize_button", "rollback_button"),
    }
    assert all(effect.retain for effect in home.done(do.Publish) if effect.topic in (home.discovery, STATE))


def test_the_sensors_show_what_the_agent_publishes(home: Home) -> None:
    sensors = home.document["components"]

    def shows(name: str, topic: str, document: Any) -> str | None:
        assert sensors[name]["state_topic"] == topic
        return theirs.shown(sensors[name], b"" if document is None else msgspec.json.encode(document))

    at_work = homeassistant.doing("specialize", Command("specialize", "1", {}, "", 0.0, 0.0, step=Step.TRAIN, progress=0.429))
    assert [shows(name, STATE, at_work) for name in ("state", "step", "progress")] == ["specialize", "train", "42"]
    idle = homeassistant.doing("idle", None)
    assert [shows(name, STATE, idle) for name in ("state", "step", "progress")] == ["idle", "none", None]

    names = ("accuracy", "latency", "sparsity", "model_size")
    model = announce.model(release(accuracy=0.8765))
    assert [shows(name, TOPICS.twin("model"), model) for name in names] == ["87.65", "1.0", "90.0", "4096"]
    assert shows("accuracy", TOPICS.twin("model"), announce.model(release(accuracy=None))) is None
    assert [shows(name, TOPICS.twin("model"), None) for name in names] == [None] * 4, "nothing is deployed any more"

    figures = {"temperature_c": 51.5, "memory_available_mb": 812.25}
    assert shows("temperature", TOPICS.measurement("system"), figures) == "51.5"
    assert shows("memory", TOPICS.measurement("system"), figures) == "812.25"
    assert shows("temperature", TOPICS.measurement("system"), {}) is None, "not every board can tell"


def test_it_is_there_as_long_as_the_agent_is(home: Home) -> None:
    assert home.document["availability_topic"] == TOPICS.health
    (up,) = home.on(TOPICS.health)
    assert theirs.available(home.document, up) == "online"
    assert theirs.available(home.document, announce.down(IDENTITY)) == "offline"


@pytest.mark.parametrize("device", ["main", "a.b:c-d_e", "x" * 128])
@pytest.mark.parametrize("prefix", ["homeassistant", "building/ha"])
def test_any_name_of_a_device_makes_a_topic(device: str, prefix: str) -> None:
    identity = Identity(Topics("te", device), "1", 1, "s", "b")
    config = msgspec.structs.replace(SEEN, homeassistant=HomeAssistantSection(True, prefix))
    made = HomeAssistant(identity, config, (), "", True, lambda: 0.0)
    *_, publication = made.announce()
    assert isinstance(publication, do.Publish)
    document = msgspec.json.decode(publication.payload)
    theirs.check(publication.topic, document)
    assert publication.topic.startswith(f"{prefix}/device/")
    assert "model" not in document["device"]


def test_devices_whose_names_differ_little_do_not_meet() -> None:
    identities = [Identity(Topics(*names), "1", 1, "s", "b") for names in (("te", "a.b"), ("te", "a_b"), ("other", "a_b"))]
    assert len({HomeAssistant(each, SEEN, (), "", True, lambda: 0.0)._config for each in identities}) == 3


def test_what_the_agent_does_is_told_when_it_changes_by_a_percent(home: Home) -> None:
    assert [msgspec.json.decode(told)["state"] for told in home.on(STATE)] == ["idle"]
    home.forget()
    home.command("specialize/1")
    home.say(Progress(Step.TRAIN, 0.5))
    for step in range(40):
        home.say(Progress(Step.TRAIN, 0.5 + step / 10_000))
    told = [msgspec.json.decode(payload) for payload in home.on(STATE)]
    assert [state["step"] for state in told] == sorted((state["step"] for state in told), key=["none", "probe", "train"].index)
    assert {state["state"] for state in told} == {"specialize"}
    assert len(told) <= 5
    home.connect()
    assert msgspec.json.decode(home.on(STATE)[-1]) == told[-1], "a new connection is told in any case"


# --- Home Assistant's birth ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_on_its_birth_the_device_is_announced_again_after_a_while(share: float) -> None:
    home = Home(share=share)
    home.connect()
    home.forget()
    home.receive(BIRTH, b"online")
    if share:
        assert home.on(home.discovery) == []
        assert home.agent.due(home.now) <= home.now.mono + SPREAD_S * share
        home.wait(SPREAD_S * share - 0.001)
        assert home.on(home.discovery) == []
        home.wait(0.001)
    assert len(home.on(home.discovery)) == 1
    home.wait(SPREAD_S)
    assert len(home.on(home.discovery)) == 1


@pytest.mark.parametrize("payload", [b"offline", b"", b"\xff"])
def test_its_death_is_no_news(home: Home, payload: bytes) -> None:
    home.forget()
    home.receive(BIRTH, payload)
    home.wait(SPREAD_S)
    assert home.on(home.discovery) == []


def test_a_birth_while_there_is_no_broker_leaves_nothing_due(home: Home) -> None:
    home.receive(BIRTH, b"online")
    home.post(events.Disconnected("gone", 1.0))
    home.wait(2 * SPREAD_S)
    assert home.agent.due(home.now) > home.now.mono
    home.forget()
    home.connect()
    assert home.on(home.discovery)


# --- buttons ------------------------------------------------------------------------------------------------------------------


def test_a_press_is_a_command_like_any_other(home: Home) -> None:
    button = home.document["components"]["specialize_button"]
    assert button["command_topic"] == PRESSES["specialize"]
    home.press("specialize", WALL)
    (label,) = home.jobs("specialize")
    assert home.statuses(label)[:2] == ["scheduled", "executing"]
    state = home.states(label)[-1]
    assert (state["requester"], state["args"]) == ("homeassistant", {})
    assert (state["issued_at"], state["expires_at"]) == (rfc3339(WALL), rfc3339(WALL + PRESS_VALID_S))
    home.end(label)
    assert home.journal[label].status.terminal


def test_what_the_button_publishes_is_a_press(home: Home) -> None:
    for op, topic in PRESSES.items():
        sent = theirs.pressed(home.document["components"][f"{op}_button"])
        pressed = clock.wall_seconds(msgspec.json.decode(sent)["time"])
        home.now = Now(pressed + 1, home.now.mono, True)
        home.receive(topic, sent)
        (label,) = home.jobs(op)
        assert home.journal[label].request["issued_at"] == rfc3339(pressed)


def test_each_press_is_one_command_however_often_it_arrives(home: Home) -> None:
    for _ in range(3):
        home.press("rollback", WALL)
    assert len(home.jobs("rollback")) == 1
    assert len(home.done(do.SwitchRelease)) == 1
    home.press("rollback", WALL + 0.001)
    assert len(home.jobs("rollback")) == 2


def test_a_press_that_comes_too_late_does_nothing(home: Home) -> None:
    home.press("specialize", WALL - PRESS_VALID_S - 1)
    assert home.jobs("specialize") == []
    (state,) = [msgspec.json.decode(e.payload) for e in home.done(do.Publish) if "/cmd/specialize/ha-" in e.topic]
    assert state["error"]["code"] == "EXPIRED"


def test_a_press_while_one_run_waits_behind_another_is_refused_as_busy(home: Home) -> None:
    for second in range(3):
        home.press("specialize", WALL + second)
    first, second = sorted(home.jobs("specialize"), key=lambda label: home.journal[label].status.value)
    states = [msgspec.json.decode(e.payload) for e in home.done(do.Publish) if "/cmd/specialize/ha-" in e.topic]
    (refused,) = [state for state in states if state["status"] == "failed"]
    assert refused["error"]["code"] == "BUSY"
    assert first in refused["reason"]
    assert second in refused["reason"]


@pytest.mark.parametrize(
    "payload", [b"PRESS", b"", b"[]", b"{}", b'{"time":null}', b'{"time":"soon"}', b'{"time":1e300}', b"\xff"]
)
def test_what_is_no_press_does_nothing_but_a_line_in_the_log(home: Home, payload: bytes) -> None:
    home.forget()
    home.receive(PRESSES["specialize"], payload)
    assert [type(effect) for effect in home.effects] == [do.Log]
    assert home.jobs("specialize") == []


@given(st.binary(max_size=60) | st.recursive(st.none() | st.floats() | st.text(max_size=5), st.lists).map(msgspec.json.encode))
def test_no_message_breaks_the_agent(payload: bytes) -> None:
    home = Home()
    home.connect()
    for topic in (*PRESSES.values(), BIRTH):
        home.receive(topic, payload)
    home.command("ping/1")
    assert home.statuses("ping/1") == ["successful"]


def test_where_commands_must_be_signed_there_are_no_buttons() -> None:
    home = Home(buttons=False)
    assert home.home.filters == (BIRTH,)
    home.connect()
    theirs.check(home.discovery, home.document)
    assert not [key for key in home.document["components"] if key.endswith("_button")]
    for op in PRESSES:
        home.press(op, WALL)
    assert home.journal == {}


def test_without_bundle_and_data_there_is_nothing_to_specialise_with() -> None:
    home = Home(msgspec.structs.replace(SEEN, specialize=SpecializeSection(bundle="b")))
    home.connect()
    assert "specialize_button" not in home.document["components"]
    assert home.home.filters == (BIRTH, PRESSES["rollback"])


# --- switched off again -------------------------------------------------------------------------------------------------------


def test_what_is_published_is_noted_before(home: Home) -> None:
    kinds = [
        effect
        for effect in home.effects
        if isinstance(effect, do.KeepDiscovered) or getattr(effect, "topic", "") == home.discovery
    ]
    assert kinds[0] == do.KeepDiscovered((home.discovery, STATE))
    assert len([effect for effect in kinds if isinstance(effect, do.KeepDiscovered)]) == 1


def test_when_it_is_off_the_broker_is_cleared_until_it_has_confirmed() -> None:
    held = ("homeassistant/device/x/config", STATE)
    off = Home(CONFIG, held)
    assert off.home.filters == ()
    for _ in range(2):
        off.forget()
        off.connect()
        assert [off.on(topic) for topic in held] == [[b""], [b""]], "again on each connection"
    tokens = {effect.topic: effect.token for effect in off.done(do.Publish) if effect.topic in held}
    off.forget()
    off.post(events.Acknowledged(tokens[held[0]]))
    off.post(events.Acknowledged(tokens[held[1]]))
    off.post(events.Acknowledged(tokens[held[1]]))
    assert off.done(do.KeepDiscovered) == [do.KeepDiscovered(held[1:]), do.KeepDiscovered(())]
    off.forget()
    off.connect()
    off.command("specialize/1")
    assert [off.on(topic) for topic in held] == [[], []]


def test_another_prefix_clears_the_one_before() -> None:
    before = "elsewhere/device/x/config"
    home = Home(held=(before, STATE))
    home.connect()
    assert home.on(before) == [b""]
    assert home.document
    home.post(events.Acknowledged(f"homeassistant {before}"))
    assert home.done(do.KeepDiscovered)[-1] == do.KeepDiscovered((home.discovery, STATE))
