"""``profiles``: what is known beforehand, and which of it is meant for this board."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconvene_agent.core import profile
from support.commandline import Cli


def test_the_document_of_the_profiles(cli: Cli) -> None:
    ended = cli("profiles", "--json")
    assert (ended.code, ended.err) == (0, "")
    document = ended.document
    assert list(document) == ["fits", "profiles"]
    assert {each["name"] for each in document["profiles"]} == set(profile.load_all())
    assert document["fits"] == cli("probe", "--json").document["profile"]
    required = {"name", "title", "match", "compute", "thermal", "batch_cap", "budget"}
    assert all(set(each) == required for each in document["profiles"])


def test_the_one_that_fits_is_marked(cli: Cli) -> None:
    fits = cli("profiles", "--json").document["fits"]
    told = cli("profiles").out.splitlines()
    assert len(told) == len(profile.load_all())
    (marked,) = (line for line in told if line.startswith("→ "))
    assert marked.split()[1] == fits


def test_a_profile_of_ones_own_is_listed_and_a_broken_one_is_told(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECONVENE_AGENT_PROFILES", str(tmp_path))
    own = tmp_path / "own-board.toml"
    text = next(path for folder in profile.search_path() for path in folder.glob("generic-x86_64.toml")).read_text()
    own.write_text(text.replace('"generic-x86_64"', '"own-board"'))
    assert "own-board" in {each["name"] for each in cli("profiles", "--json").document["profiles"]}
    own.write_text(text)
    ended = cli("profiles", "--json")
    assert ended.code == 2
    ended.error("SCHEMA")
    assert ended.complaint.startswith(f"{own}: the profile calls itself 'generic-x86_64'")
