"""docs/troubleshooting.md repeats every finding that is not well, in the code's own words; and every finding has a test."""

from __future__ import annotations

import pkgutil
import re
from importlib import import_module
from pathlib import Path

import pytest

from reconvene_agent.cli import doctor
from reconvene_agent.cli.doctor.findings import Kind, Verdict

PAGE = Path(__file__).parents[3] / "docs/troubleshooting.md"
KINDS: dict[str, Kind] = {
    f"{name}.{constant}": value
    for name in sorted(module.name for module in pkgutil.iter_modules(doctor.__path__))
    for constant, value in vars(import_module(f"{doctor.__name__}.{name}")).items()
    if isinstance(value, Kind)
}


def shown(template: str) -> str:
    """Return a text as the page shows it: names in capitals stand for facts."""
    return re.sub(r"\{(\w+)\}", lambda found: found[1].upper(), template).replace("|", r"\|")


def rows() -> list[tuple[str, ...]]:
    """Return the rows of the page's tables with three columns."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    cells = [re.split(r"(?<!\\) ?\| ?", line)[1:-1] for line in lines if line.startswith("| ")]
    return [tuple(row) for row in cells if len(row) == 3 and row[0] != "what you see"]


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.verdict is not Verdict.OK])
def test_the_page_says_what_doctor_says(name: str) -> None:
    kind = KINDS[name]
    (symptom,) = (symptom for symptom, says, do in rows() if (says, do) == (shown(kind.says), shown(kind.do)))
    assert symptom


def test_the_page_says_nothing_else() -> None:
    known = {(shown(kind.says), shown(kind.do)) for kind in KINDS.values()}
    assert [row for row in rows() if row[1:] not in known] == []


def test_every_kind_has_a_name_of_its_own() -> None:
    codes = [kind.code for kind in KINDS.values()]
    assert sorted(codes) == sorted(set(codes))


def test_every_kind_that_is_not_well_says_what_to_do() -> None:
    assert [name for name, kind in KINDS.items() if bool(kind.do) is (kind.verdict is Verdict.OK)] == []


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_is_produced_by_a_test(name: str) -> None:
    tests = "\n".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert re.search(rf"\b{re.escape(name)}\b", tests)


def test_the_page_is_where_people_look() -> None:
    root = PAGE.parents[1]
    for page, link in (("README.md", "docs/troubleshooting.md"), ("docs/commands.md", "troubleshooting.md")):
        assert f"({link})" in (root / page).read_text(encoding="utf-8")
