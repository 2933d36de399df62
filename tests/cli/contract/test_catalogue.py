"""No operation, event, measurement or alarm without a type, and no address that a broker would refuse."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import get_args

import pytest

from reconvene_agent.cli.contract import catalogue
from reconvene_agent.core.contract import records, results
from reconvene_agent.core.messages import OPERATIONS
from reconvene_agent.core.topics import EventName, MeasurementName, TwinName
from reconvene_agent.daemon.reporting.alarms import NAMES

MQTT = Path(__file__).parents[3] / "docs/mqtt.md"
CHANNELS = {channel.name: channel for channel in catalogue.channels()}
WHERE = {
    "event": "EVENTS in core/contract/records.py",
    "measurement": "MEASUREMENTS in core/contract/records.py",
    "twin": "_twin in cli/contract/catalogue.py",
    "alarm": "channels in cli/contract/catalogue.py",
    "command": "RESULTS in core/contract/results.py",
}


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("event", get_args(EventName)),
        ("measurement", get_args(MeasurementName)),
        ("twin", get_args(TwinName)),
        ("alarm", NAMES),
        ("command", tuple(OPERATIONS)),
    ],
)
def test_everything_has_a_channel(kind: str, names: Collection[str]) -> None:
    have = {name.removeprefix(f"{kind}_") for name in CHANNELS if name.startswith(f"{kind}_")}
    assert have == set(names), f"without a type, or no longer there: {have ^ set(names)}; see {WHERE[kind]}"


def test_what_has_a_type_exists() -> None:
    assert set(results.RESULTS) == set(OPERATIONS), "see RESULTS in core/contract/results.py"
    assert set(records.EVENTS) == set(get_args(EventName)), "see EventName in core/topics.py"


def test_an_operation_without_a_type_says_where_to_add_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPERATIONS, "fly", OPERATIONS["ping"])
    with pytest.raises(LookupError, match=r"'fly' .*RESULTS"):
        list(catalogue.channels())


def test_addresses_are_told_apart_and_short_enough() -> None:
    addresses = [channel.address for channel in CHANNELS.values()]
    assert len(set(addresses)) == len(addresses)
    assert max(address.count("/") for address in addresses) == 7, "which is the most that AWS IoT Core takes"


def test_a_name_stands_for_one_type() -> None:
    kinds: dict[str, object] = {}
    for channel in catalogue.channels():
        for message in (*channel.sent, *channel.received):
            assert kinds.setdefault(message.name, message.type) is message.type
            assert message.type is None or message.summary.endswith("."), message


def test_the_documentation_names_it() -> None:
    for name in (*get_args(EventName), *NAMES, *OPERATIONS, *get_args(TwinName), *get_args(MeasurementName)):
        assert f"`{name}`" in (text := MQTT.read_text(encoding="utf-8")) or f"/{name}`" in text, f"{name} is not in {MQTT.name}"
