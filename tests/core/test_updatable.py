from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconvene_agent.core import config, updatable
from reconvene_agent.core.config import Config
from support.values import json_values

FORBIDDEN = re.compile(r"file|dir|path|python|key(?!epalive)|root|device_id|profile|password|username|trust|url_file|socket")

changes = st.dictionaries(st.sampled_from(updatable.NAMES), json_values, min_size=1)


def test_every_name_is_one_of_the_configuration() -> None:
    sections = {field.name: field.type for field in msgspec.structs.fields(Config)}
    for section, names in updatable.UPDATABLE.items():
        assert set(names) <= set(sections[section].__struct_fields__)


def test_none_names_a_file_a_program_an_identity_or_a_key() -> None:
    assert [name for name in updatable.NAMES if FORBIDDEN.search(name.replace("keepalive", ""))] == []
    withheld = [f"{s.name}.{name}" for s in msgspec.structs.fields(Config) for name in s.type.__struct_fields__]
    assert {"agent.state_dir", "worker.python", "broker.password_file", "agent.device_id"} <= set(withheld) - set(updatable.NAMES)


@pytest.mark.parametrize("name", ["/etc", "../x", "a/../../b", "a\0b"])
def test_a_folder_of_a_command_is_inside_the_agents_own(name: str) -> None:
    assert "inside the agent's own folder" in updatable.mistake({"specialize.data": name})
    assert updatable.mistake({"specialize.data": "a/b"}) == ""
    assert updatable.mistake({"specialize.data": None}) == ""


@given(changes, changes)
def test_changes_pile_up_and_can_all_be_taken_back(first: dict[str, Any], second: dict[str, Any]) -> None:
    both = updatable.applied(updatable.applied({}, first), second)
    wanted = {name: value for name, value in (first | second).items() if value is not None}
    assert updatable.names(both) == sorted(wanted)
    assert updatable.applied(both, dict.fromkeys(updatable.NAMES)) == {}
    assert updatable.listed(both) == both


@given(json_values)
def test_what_somebody_else_wrote_to_the_disk_cannot_reach_further(found: Any) -> None:
    assert set(updatable.names(updatable.listed(found))) <= set(updatable.NAMES)
    listed = updatable.listed({"worker": {"python": "/bin/sh", "attempts": 2}, "elsewhere": {"x": 1}, "broker": 3})
    assert listed == {"worker": {"attempts": 2}}


@given(changes)
def test_the_owners_document_stays_as_it_is(values: dict[str, Any]) -> None:
    document: dict[str, Any] = {"training": {"epochs": 7}, "worker": {"python": "/usr/bin/python3"}}
    before = msgspec.json.encode(document)
    found = updatable.merged(document, updatable.applied({}, values))
    assert msgspec.json.encode(document) == before
    assert found["worker"]["python"] == "/usr/bin/python3"
    assert found["training"]["epochs"] == (7 if values.get("training.epochs") is None else values["training.epochs"])


def test_a_section_that_is_none_is_left_for_validation_to_find() -> None:
    with pytest.raises(config.UsageError, match=r"training: must be a section"):
        config.decode(updatable.merged({"training": 3}, {"training": {"epochs": 2}}))


def test_differences_are_named() -> None:
    before, after = config.decode({}), config.decode({"budget": {"latency_ms": 20}, "drift": {"auto": False}})
    assert updatable.differences(before, after, Config.__struct_fields__) == ["budget.latency_ms"]
