from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconvene_agent.core import config, topics
from reconvene_agent.core.budget import BudgetLimits
from reconvene_agent.core.config import AgentSection, BrokerSection, Config, decode
from reconvene_agent.core.consistency import broker_address
from reconvene_agent.core.errors import ErrorCode, UsageError
from support.values import json_values


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("STATE_DIRECTORY", "RUNTIME_DIRECTORY", "XDG_STATE_HOME", config.CONFIG_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(config, "SYSTEM_CONFIG", tmp_path / "no-such-system-config")


def mistakes(document: dict[str, Any]) -> list[str]:
    with pytest.raises(UsageError) as caught:
        decode(document)
    assert caught.value.code is ErrorCode.SCHEMA
    return caught.value.message.splitlines()


def test_an_empty_file_is_the_defaults() -> None:
    assert decode({}) == Config()


def test_every_setting_reaches_its_section(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(
        """
        [agent]
        device_id = "board-7"
        state_dir = "/s"
        trust_clock = true
        [broker]
        url = "mqtts://broker.example"
        keepalive_s = 30
        [worker]
        attempts = 5
        stall_timeout_s = 60
        [telemetry]
        interval_s = 5
        [specialize]
        bundle = "vgg"
        sparsities = [0.5, 0.9]
        [budget]
        latency_ms = 20
        [method]
        average = "weighted"
        [training]
        epochs = 2
        """
    )
    found = config.load(path)
    assert (found.device_id, found.state_dir, found.agent.trust_clock) == ("board-7", Path("/s"), True)
    assert (found.broker.url, found.broker.keepalive_s) == ("mqtts://broker.example", 30)
    assert (found.worker.attempts, found.worker.stall_timeout_s) == (5, 60.0)
    assert (found.telemetry.interval_s, found.specialize.sparsities) == (5.0, (0.5, 0.9))
    assert found.budget == BudgetLimits(latency_ms=20.0)
    assert (found.method.average, found.training.epochs) == ("weighted", 2)


def test_every_mistake_is_told_at_once_with_the_files_name(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(
        """
        agnet = {}
        budget = 5
        [broker]
        url = "http://x"
        root = "a/b"
        keepalive = 60
        username = 5
        password_file = "/no/such/file"
        [agent]
        device_id = "a b"
        data_dir = "relative"
        [worker]
        attempts = 0
        """
    )
    with pytest.raises(UsageError) as caught:
        config.load(path)
    lines = caught.value.message.splitlines()
    assert all(line.startswith(f"{path}: ") for line in lines)
    starts = [re.split("[:;]", line.removeprefix(f"{path}: "))[0] for line in lines]
    assert starts == [
        "agnet",
        "budget",
        "broker.keepalive",
        "broker.username",
        "worker.attempts",
        "broker.url",
        "broker",
        "broker.root",
        "agent.device_id",
        "agent.data_dir",
        "broker.password_file",
    ]


def test_an_unknown_name_is_told_with_the_one_that_was_meant() -> None:
    assert mistakes({"traning": {}}) == ["traning: there is no such section; is it training?"]
    assert mistakes({"broker": {"ulr": "x"}}) == ["broker.ulr: there is no such setting; is it url?"]
    assert mistakes({"broker": {"zzz": "x"}}) == ["broker.zzz: there is no such setting"]


@pytest.mark.parametrize(
    ("document", "mistake"),
    [
        ({"broker": []}, "broker: must be a section: [broker]"),
        ({"agent": {"log_level": "loud"}}, "agent.log_level: Invalid enum value 'loud'"),
        ({"telemetry": {"interval_s": 0.5}}, "telemetry.interval_s: Expected `float` >= 1.0"),
        ({"telemetry": {"spool_bytes": 1000}}, "telemetry.spool_bytes: Expected `int` >= 65536"),
        ({"telemetry": {"spool_days": 0}}, "telemetry.spool_days: Expected `float` > 0.0"),
        ({"telemetry": {"spool_events_share": 1.5}}, "telemetry.spool_events_share: Expected `float` <= 1.0"),
        ({"telemetry": {"spool_min_free_bytes": -1}}, "telemetry.spool_min_free_bytes: Expected `int` >= 0"),
        ({"specialize": {"sparsities": [1.0]}}, "specialize.sparsities: Expected `float` < 1.0 - at `$[0]`"),
        ({"broker": {"url": "mqtt://h", "ca_file": __file__}}, "broker: ca_file and cert_file need an mqtts:// url"),
        ({"broker": {"url": "mqtts://h", "cert_file": __file__}}, "broker: cert_file and key_file go together"),
        ({"broker": {"password_file": __file__}}, "broker: password_file needs a username"),
        ({"homeassistant": {"prefix": "ha/#"}}, "homeassistant.prefix: must be topic levels of letters, digits and . _ : -"),
        ({"homeassistant": {"prefix": ""}}, "homeassistant.prefix: must be topic levels of letters, digits and . _ : -"),
        ({"prometheus": {"textfile": "agent.prom"}}, "prometheus.textfile: must be an absolute path that ends in .prom"),
        ({"prometheus": {"textfile": "/agent.txt"}}, "prometheus.textfile: must be an absolute path that ends in .prom"),
        ({"broker": {"root": ""}}, "broker.root: must be one topic level of letters, digits and . _ : -"),
        ({"agent": {"device_id": "x\n"}}, "agent.device_id: must be made of letters, digits and . _ : -, at most 128"),
        ({"agent": {"state_dir": "state"}}, "agent.state_dir: must be an absolute path"),
        ({"broker": {"ca_file": "/no/such"}}, "broker.ca_file: /no/such is not a file"),
        ({"broker": {"ca_file": "/" + "x" * 300}}, f"broker.ca_file: /{'x' * 300} is not a file"),
        ({"broker": {"ca_file": "/a\0b"}}, "broker.ca_file: /a\0b is not a file"),
    ],
)
def test_mistakes_are_told_in_one_line(document: dict[str, Any], mistake: str) -> None:
    assert mistakes(document) == [mistake]


def test_a_file_that_only_the_service_may_see_is_no_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(_: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_file", forbidden)
    assert decode({"broker": {"username": "u", "password_file": "/etc/secret/password"}}).broker.username == "u"


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("mqtt://host", ("host", 1883, False)),
        ("mqtts://host", ("host", 8883, True)),
        ("mqtt://host:1", ("host", 1, False)),
        ("mqtts://192.0.2.1:65535/", ("192.0.2.1", 65535, True)),
        ("mqtt://[2001:db8::1]:1884", ("2001:db8::1", 1884, False)),
    ],
)
def test_addresses_of_brokers(url: str, address: tuple[str, int, bool]) -> None:
    assert broker_address(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "host",
        "host:1883",
        "mqtt:",
        "mqtt://",
        "mqtt://:1883",
        "http://host",
        "ws://host",
        "mqtt://host:0x5",
        "mqtt://host:65536",
        "mqtt://host:0",
        "mqtt://host/path",
        "mqtt://host?x=1",
        "mqtt://host#x",
        "mqtt://[::1",
        "mqtt://user@host",
        "mqtt://user:secret@host",
    ],
)
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        broker_address(url)
    (line,) = mistakes({"broker": {"url": url}})
    assert line.startswith("broker.url: ")
    assert "secret" not in line


def test_what_is_published_holds_no_secret(tmp_path: Path) -> None:
    secret = tmp_path / "very-secret-name"
    secret.write_text("hunter2")
    found = decode({"broker": {"url": "mqtt://h", "username": "u", "password_file": str(secret)}}).public()
    assert found["broker"]["password_file"] is True
    assert Config().public()["broker"]["password_file"] is False
    encoded = msgspec.json.encode(found)
    assert b"hunter2" not in encoded
    assert b"very-secret-name" not in encoded


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"missing\.toml: cannot be read: No such file or directory"):
        config.load(tmp_path / "missing.toml")


@pytest.mark.parametrize("content", [b"[", b"\xff", b"a=" + b"[" * 5000, b"a=" + b"1" * 5000])
def test_a_file_that_is_not_toml(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"config\.toml: cannot be read: ."):
        config.load(path)


sections = st.sampled_from(Config.__struct_fields__) | st.text()


@given(st.dictionaries(sections, json_values | st.dictionaries(st.text(), json_values)))
def test_no_document_breaks_the_reader(document: dict[str, Any]) -> None:
    try:
        decode(document)
    except UsageError:
        pass


def test_the_environments_file_comes_before_the_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert config.find() is None
    assert config.load() == Config()
    system, named = tmp_path / "system.toml", tmp_path / "named.toml"
    system.write_text('[agent]\ndevice_id = "system"')
    named.write_text('[agent]\ndevice_id = "named"')
    monkeypatch.setattr(config, "SYSTEM_CONFIG", system)
    assert config.load().device_id == "system"
    monkeypatch.setenv(config.CONFIG_VARIABLE, str(named))
    assert config.load().device_id == "named"


def test_folders_hang_below_the_state() -> None:
    found = Config(agent=AgentSection(state_dir="/s"))
    assert found.socket_path == Path("/s/control.sock")
    assert found.status_path == Path("/s/status.json")
    assert (found.bundles_dir, found.data_dir, found.models_dir) == (Path("/s/bundles"), Path("/s/data"), Path("/s/models"))


def test_folders_can_be_named() -> None:
    found = Config(agent=AgentSection(state_dir="/s", runtime_dir="/r", bundles_dir="/b", data_dir="/d"))
    assert (found.socket_path, found.bundles_dir, found.data_dir) == (Path("/r/control.sock"), Path("/b"), Path("/d"))


def test_systemds_folders_are_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/x:/var/lib/y")
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/x:/run/y")
    assert Config().state_dir == Path("/var/lib/x")
    assert Config().socket_path == Path("/run/x/control.sock")
    named = Config(agent=AgentSection(state_dir="/s"))
    assert named.socket_path == Path("/s/control.sock"), "a state folder of one's own takes its socket along"


@pytest.mark.parametrize(
    ("user", "base", "expected"),
    [
        (0, "", "/var/lib/reconvene-agent"),
        (1000, "", "/home/me/.local/state/reconvene-agent"),
        (1000, "/x", "/x/reconvene-agent"),
    ],
)
def test_the_state_of_root_and_of_others(monkeypatch: pytest.MonkeyPatch, user: int, base: str, expected: str) -> None:
    monkeypatch.setattr(config.os, "geteuid", lambda: user)
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("XDG_STATE_HOME", base)
    assert Config().state_dir == Path(expected)


@given(st.text())
def test_the_devices_own_name_always_fits_a_topic(host: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config.socket, "gethostname", lambda: host)
        assert topics.valid_segment(config.default_device_id())


def test_equally_named_boards_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config.socket, "gethostname", lambda: "raspberrypi")
    monkeypatch.setattr(Path, "read_bytes", lambda _: b"one\n")
    first = config.default_device_id()
    monkeypatch.setattr(Path, "read_bytes", lambda _: b"two\n")
    second = config.default_device_id()
    assert first != second
    assert first.startswith("raspberrypi-")
    assert b"one" not in first.encode()


def test_sections_have_defaults_that_are_valid() -> None:
    assert msgspec.convert(msgspec.to_builtins(Config()), Config) == Config()
    assert BrokerSection().url == ""


def test_runs_of_the_agents_own_need_something_to_run_with() -> None:
    for section in ({"data": "d"}, {"bundle": "b"}, {}):
        with pytest.raises(UsageError, match=r"specialize\.new_data_share: needs a bundle and data in the same section"):
            decode({"specialize": {"new_data_share": 0.2, **section}})
        with pytest.raises(UsageError, match=r"drift\.auto: needs a bundle and data in the section specialize"):
            decode({"specialize": section, "drift": {"auto": True}})
    assert decode({"specialize": {"new_data_share": 0.2, "data": "d", "bundle": "b"}}).specialize.new_data_share == 0.2


def test_training_windows_are_checked_one_by_one() -> None:
    assert decode({"worker": {"windows": ["01:00-05:00", "22:00-06:00"]}}).worker.windows == ("01:00-05:00", "22:00-06:00")
    assert mistakes({"worker": {"windows": ["01:00-05:00", "1-5", "02:00-02:00"]}}) == [
        "worker.windows: '1-5' must look like 01:00-05:00",
        "worker.windows: '02:00-02:00' must end at another time than it begins; 00:00-24:00 is the whole day",
    ]
