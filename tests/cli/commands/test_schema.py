"""``schema``: the messages listed, one of them in full, and the whole contract."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import msgspec
import pytest
import yaml

from support.commandline import Cli

DOCUMENT = Path(__file__).parents[3] / "docs/asyncapi.yaml"


def test_the_list(cli: Cli) -> None:
    ended = cli("schema", "--json")
    assert (ended.code, ended.err) == (0, "")
    listed = {each["name"]: each for each in ended.document["messages"]}
    assert listed["Up"]["channels"] == ["{root}/device/{device_id}/service/reconvene-agent/status/health"]
    assert len(listed["Alarm"]["channels"]) > 1
    told = cli("schema").out
    assert "S is {root}/device/{device_id}/service/reconvene-agent" in told
    assert all(f"\n{name} " in told and each["summary"] in told for name, each in listed.items())


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_one_schema(cli: Cli, words: tuple[str, ...]) -> None:
    ended = cli("schema", "PromoteRequest", *words)
    assert (ended.code, ended.err) == (0, "")
    assert (ended.out.count("\n") == 1) == bool(words)
    check = jsonschema.Draft202012Validator(msgspec.json.decode(ended.out))
    assert check.is_valid({"status": "init", "args": {"version": "r0001-00000000"}, "x-trace": 1})
    assert not check.is_valid({"status": "init", "args": {"version": 1}})
    assert not check.is_valid({"status": "init"})


def test_the_asyncapi_document_is_the_one_in_the_documentation(cli: Cli) -> None:
    assert msgspec.json.decode(cli("schema", "--asyncapi").out) == yaml.safe_load(DOCUMENT.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("name", "hint"), [("PromoteReqest", "is it PromoteRequest?"), ("zzz", "'reconvene-agent schema' lists them")]
)
def test_a_name_that_there_is_not(cli: Cli, name: str, hint: str) -> None:
    ended = cli("schema", name)
    assert ended.code == 2
    assert ended.err == f"reconvene-agent: error: there is no message '{name}'; {hint}\n"


def test_one_thing_at_a_time(cli: Cli) -> None:
    assert cli("schema", "Up", "--asyncapi").code == 2
