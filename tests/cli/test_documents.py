"""docs/json.md names every key of the documents that the commands really print."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconvene_agent.core.contract.results import RESULTS
from support.commandline import Cli, Disturbed, Ended, configured
from support.contract import difference_from

DOCS = Path(__file__).parents[2] / "docs/json.md"
# Where a section says "as above", these are meant.
ABOVE = {"specialize": ("plan", "prune"), "status": ("probe",)}


def keys(document: Any) -> Iterator[str]:
    """Yield every key in a document; what is keyed by file names is data."""
    if isinstance(document, dict):
        for name, value in document.items():
            yield name
            if name != "files":
                yield from keys(value)
    elif isinstance(document, list):
        for value in document:
            yield from keys(value)


def section(name: str) -> str:
    """Return what the documentation says of one command, and of those that it refers to."""
    text = DOCS.read_text(encoding="utf-8")
    parts = [re.search(rf"^## {each}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL) for each in (name, *ABOVE.get(name, ()))]
    assert all(parts)
    return "\n".join(part[1] for part in parts if part)


def undocumented(name: str, document: Any) -> set[str]:
    text = section(name)
    return {key for key in keys(document) if not re.search(rf"\b{key}\b", text)}


@pytest.fixture
def documents(
    planned: Ended,
    pruned: Ended,
    disturbed: Disturbed,
    benched: Ended,
    predicted: Ended,
    weighty: Ended,
    cli: Cli,
    tmp_path: Path,
) -> dict[str, Any]:
    """Return a real document of every command but ``profiles``, which prints its files as they are."""
    return {
        "plan": planned.document,
        "prune": pruned.document,
        "specialize": disturbed.third.document,
        "bench": benched.document,
        "predict": predicted.document,
        "bundle": weighty.document,
        "probe": cli("probe", "--json").document,
        "status": cli("status", "--json").document,
        "doctor": cli("doctor", "--json", "--config", configured(tmp_path, worker={"python": "/no/python"})).document,
    }


def test_every_key_is_documented(documents: dict[str, Any]) -> None:
    missing = {name: undocumented(name, document) for name, document in documents.items()}
    assert not any(missing.values()), missing


@pytest.mark.parametrize("name", ["plan", "specialize"])
def test_results_are_what_the_contract_says(documents: dict[str, Any], name: str) -> None:
    assert difference_from(RESULTS[name], documents[name]) is None


def test_a_key_that_is_not_documented_would_be_found() -> None:
    assert undocumented("plan", {"budget": {"latency_ms": {"value": 1, "surprise": 2}}}) == {"surprise"}


def test_the_shape_of_an_error_is_documented(cli: Cli) -> None:
    error = cli("plan", "/nowhere", "--json").document
    told = DOCS.read_text(encoding="utf-8").partition("\n## ")[0]
    assert all(re.search(rf"\b{key}\b", told) for key in keys(error))
