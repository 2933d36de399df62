"""``models``: what is kept, what serves, and how that changes; with and without the agent."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from reconvene_agent.core import release as releases
from reconvene_agent.core.shelf import Shelf
from support.commandline import Cli, configured
from support.shelves import publish, refuse, serving, tear

DOCS = Path(__file__).parents[3] / "docs/json.md"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def made(models: Path) -> list[str]:
    return [publish(models, number) for number in (1, 2, 3)]


def test_the_list_says_what_serves_and_what_else_is_kept(cli: Cli, models: Path, made: list[str]) -> None:
    refused = refuse(models, 4)
    Shelf(models).rollback()
    tear(models, made[0])
    document = cli("models", "list", "--models", models, "--json").document
    assert (document["models"], document["current"], document["fall"]) == (str(models), made[1], None)
    found = [(entry["version"], entry["place"], entry["steps_back"], bool(entry["flaw"])) for entry in document["releases"]]
    assert found == [
        (made[0], "before", 1, True),
        (made[1], "current", 0, False),
        (made[2], "newer", None, False),
        (refused, "refused", None, False),
    ]
    assert document["releases"][3]["refused"] == ["it is worse"]


def test_the_list_for_people(cli: Cli, models: Path, made: list[str]) -> None:
    refused = refuse(models, 4)
    tear(models, made[0])
    ended = cli("models", "list", "--models", models)
    assert ended.code == 0
    heading, *rows, broken, why = ended.out.splitlines()
    assert heading.split() == ["release", "accuracy", "p95", "ms", "size", "sparsity", "precision", "created", "place"]
    assert [row.split()[0] for row in rows] == [made[0], made[1], "→", refused]
    assert [row.rstrip().split("  ")[-1].strip() for row in rows] == ["2 back, broken", "1 back", "current", "refused"]
    assert broken.startswith(f"{made[0]}: ")
    assert why == f"{refused}: it is worse"


def test_a_fall_is_told(cli: Cli, models: Path, made: list[str]) -> None:
    tear(models, made[2])
    Shelf(models).check()
    assert cli("models", "list", "--models", models, "--json").document["fall"]["broken"] == made[2]
    told = cli("models", "list", "--models", models).out.splitlines()[-1]
    assert told.startswith(f"{made[2]} was found broken, {made[1]} took its place: ")


def test_a_release_whose_manifest_is_lost_is_listed(cli: Cli, models: Path, made: list[str]) -> None:
    (models / made[0] / releases.MANIFEST).write_bytes(b"{")
    ended = cli("models", "list", "--models", models)
    assert ended.code == 0
    assert "2 back, broken" in ended.out
    assert cli("models", "show", made[0], "--models", models).code == 2


def test_an_empty_folder_has_none(cli: Cli, tmp_path: Path) -> None:
    assert cli("models", "list", "--models", tmp_path).out == f"no releases in {tmp_path}\n"
    assert cli("models", "list", "--models", tmp_path, "--json").document["releases"] == []
    assert "nothing serves in" in cli("models", "show", "--models", tmp_path).complaint


def test_no_folder_is_a_mistake(cli: Cli, tmp_path: Path) -> None:
    ended = cli("models", "list", "--models", tmp_path / "none")
    assert (ended.code, ended.complaint) == (
        2,
        f"{tmp_path / 'none'} is no folder of releases: name one with --models, or specialize first",
    )


def test_all_that_is_known_of_a_release(cli: Cli, models: Path, made: list[str]) -> None:
    document = cli("models", "show", "--models", models, "--json").document
    assert (document["version"], document["place"], document["flaw"]) == (made[2], "current", "")
    assert document["onnx"] == str(models / made[2] / "model.onnx")
    told = dict(
        re.split(r"\s{2,}", line, maxsplit=1) for line in cli("models", "show", "r0001", "--models", models).out.splitlines()
    )
    assert told["release"] == f"{made[0]} (2 back)"
    assert set(told) == {"release", "file", "sha256", "model", "pruned", "latency", "accuracy", "created"}


def test_back_twice_and_forth(cli: Cli, models: Path, made: list[str]) -> None:
    assert cli("models", "rollback", "--models", models, "--json").document == {"before": made[2], "after": made[1]}
    assert cli("models", "rollback", "--models", models).out == f"{made[0]} serves now, in place of {made[1]}\n"
    ended = cli("models", "rollback", "--models", models, "--json")
    assert ended.code == 2
    ended.error("SCHEMA")
    assert serving(models) == made[0]
    assert cli("models", "promote", made[2], "--models", models).code == 0
    assert cli("models", "promote", made[2][:5], "--models", models).out == f"{made[2]} serves already\n"
    assert serving(models) == made[2]


def test_two_steps_at_once(cli: Cli, models: Path, made: list[str]) -> None:
    assert cli("models", "rollback", "--steps", 2, "--models", models, "--json").document["after"] == made[0]
    assert cli("models", "rollback", "--steps", 3, "--models", models).code == 2


def test_a_broken_release_is_not_promoted(cli: Cli, models: Path, made: list[str]) -> None:
    tear(models, made[0])
    ended = cli("models", "promote", made[0], "--models", models, "--json")
    assert ended.code == 8
    ended.error("VERIFY_FAILED")
    assert serving(models) == made[2]


def test_the_agents_own_are_meant_by_default(cli: Cli, tmp_path: Path) -> None:
    version = publish(tmp_path / "state/models", 1)
    config = configured(tmp_path, agent={"state_dir": str(tmp_path / "state")})
    assert cli("models", "list", "--config", config, "--json").document["current"] == version


def test_every_key_is_documented(cli: Cli, models: Path, made: list[str]) -> None:
    refuse(models, 4)
    section = re.search(r"^## models\n(.*?)(?=^## |\Z)", DOCS.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert section is not None
    documents: list[dict[str, Any]] = [
        cli("models", *words, "--models", models, "--json").document for words in (("list",), ("show",), ("rollback",))
    ]
    for document in (*documents, *documents[0]["releases"]):
        missing = {key for key in document if not re.search(rf"\b{key}\b", section[1])}
        assert not missing
