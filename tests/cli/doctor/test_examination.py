from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reconvene_agent.cli.doctor import configuration, examination
from reconvene_agent.cli.doctor.case import Case
from reconvene_agent.cli.doctor.examination import STEPS, Step, examine
from reconvene_agent.cli.doctor.findings import Finding, Verdict
from support.commandline import configured
from support.doctoring import codes
from support.planting import Plant


def broken(_case: Case) -> Iterator[Finding]:
    yield Finding("clock", "clock.good", Verdict.OK, "so far so good")
    raise RuntimeError("out of\nluck")


def test_a_check_that_fails_is_a_finding_and_the_others_are_made(capsys: pytest.CaptureFixture[str]) -> None:
    steps = (Step("clock", broken, needs_config=False), Step("config", configuration.check, needs_config=False))
    begun: list[str] = []
    found = list(examine(Case(None), begun.append, steps=steps))
    assert codes(found) == ["clock.good", "clock.failed", "config.none"]
    assert found[1].verdict is Verdict.PROBLEM
    assert found[1].found == "this check failed: RuntimeError: out of luck"
    assert found[1].advice == examination.FAILED.do
    assert begun == ["clock", "config"]
    assert capsys.readouterr().err == ""
    list(examine(Case(None), begun.append, debug=True, steps=steps))
    assert "Traceback" in capsys.readouterr().err


def test_without_a_configuration_that_is_right_the_rest_is_looked_at_all_the_same(tmp_path: Path, plant: Plant) -> None:
    """It must not need what cannot be known then, and says so."""
    case = Case(configured(tmp_path, agent={"log_level": "loud"}), root=plant({"proc/meminfo": "MemTotal: 4194304 kB\n"}))
    found = list(examine(case, lambda _: None))
    by_check = {name: [each.code for each in found if each.check == name] for name in (step.name for step in STEPS)}
    assert by_check == {
        "config": ["config.mistake"],
        "memory": ["memory.short"],
        "power": ["power.good"],
        "kernel": ["kernel.good"],
        "clock": ["clock.unsynchronised"],
        **{name: [f"{name}.unconfigured"] for name in ("service", "profile", "files", "credentials", "disk", "worker", "broker")},
    }
    unconfigured = next(each for each in found if each.code == "disk.unconfigured")
    assert (unconfigured.verdict, unconfigured.advice) == (Verdict.SKIPPED, examination.UNCONFIGURED.do)
    assert unconfigured.found == examination.UNCONFIGURED.says


def test_every_check_calls_its_findings_by_its_own_name(tmp_path: Path) -> None:
    case = Case(configured(tmp_path, agent={"state_dir": str(tmp_path)}, worker={"python": "/no/python"}), offline=True)
    seen: dict[str, set[str]] = {}
    order: list[str] = []
    for finding in examine(case, order.append):
        seen.setdefault(order[-1], set()).add(finding.check)
    assert seen == {step.name: {step.name} for step in STEPS}
