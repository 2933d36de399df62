"""``plan``: its document, its table, and what it says when nothing fits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.commandline import Cli, Ended, command

COSTS = ("params", "bytes", "macs", "memory_mb", "training_memory_mb", "latency_ms")
HOW = ("conditions", "repeats", "doubts", "verified", "memory_measured_mb")
CANDIDATE = {"sparsity", "width_multiplier", *COSTS, "feasible", "why", *HOW}
KEYS = ["budget", "candidates", "chosen", "nearest_miss", "seconds"]

Answering = Callable[[dict[str, Any]], Path]


@pytest.fixture(scope="module")
def infeasible(bundle: Path) -> Ended:
    return command("plan", bundle, "--sparsities", 0.5, 0.9, "--model-mb", 0.001, "--json")


def test_the_document_of_a_plan(planned: Ended) -> None:
    assert planned.code == 0
    document = planned.document
    assert list(document) == KEYS
    assert all(set(candidate) == CANDIDATE for candidate in document["candidates"])
    assert document["chosen"] == document["candidates"][1]
    assert document["nearest_miss"] is None
    assert document["seconds"] > 0
    assert all(set(limit) == {"value", "source"} for limit in document["budget"].values())
    assert document["budget"]["model_mb"] == {"value": 0.25, "source": "command line"}


def test_what_cannot_change_the_choice_is_not_measured(planned: Ended) -> None:
    large, small = planned.document["candidates"]
    assert (large["sparsity"], large["latency_ms"], large["feasible"]) == (0.5, None, False)
    assert large["why"].startswith("model_mb 0.62")
    assert (small["sparsity"], small["feasible"]) == (0.9, True)
    assert set(small["latency_ms"]) == {"p50", "p95", "runs", "spread"}
    assert set(small["conditions"]) == {"others", "waited", "stolen", "throttled", "clock"}
    assert small["verified"]
    assert 0 < small["memory_measured_mb"] < 3 * small["memory_mb"]
    assert 0 < small["latency_ms"]["p50"] <= small["latency_ms"]["p95"]
    assert small["params"] < large["params"]


def test_progress_goes_to_stderr(planned: Ended) -> None:
    assert "plan        0% scoring weights at width ×1\n" in planned.err


def test_nothing_that_fits_is_told_with_the_plan(infeasible: Ended) -> None:
    assert infeasible.code == 6
    document = infeasible.error("INFEASIBLE")
    assert list(document) == [*KEYS, "error"]
    assert document["chosen"] is None
    assert {candidate["feasible"] for candidate in document["candidates"]} == {False}
    assert document["candidates"][-1]["width_multiplier"] == 0.25
    miss = document["nearest_miss"]
    assert set(miss) == {"sparsity", "width_multiplier", "limit", "value", "allowed"}
    assert (miss["width_multiplier"], miss["sparsity"], miss["limit"], miss["allowed"]) == (0.25, 0.9, "model_mb", 0.001)
    assert infeasible.complaint.startswith("no candidate fits the budget: the nearest, width ×0.25, sparsity 0.9, has model_mb ")


def rows(told: Ended) -> list[list[str]]:
    """Return the words of each candidate's row."""
    lines = told.out.splitlines()
    (headings,) = (number for number, line in enumerate(lines) if "sparsity" in line and "verdict" in line)
    return [line.split() for line in lines[headings + 1 : -1] if not line.startswith(("verified ", "in doubt "))]


def test_a_plan_is_told_to_people_as_a_table(planned: Ended, answering: Answering, cli: Cli, bundle: Path) -> None:
    told = cli("plan", bundle, "--config", answering(planned.document))
    assert (told.code, told.err) == (0, "")
    assert "limit model_mb 0.25 (command line)\n" in told.out
    large, small = rows(told)
    assert (large[:2], large[7:10]) == (["×1", "0.5"], ["·", "·", "·"])
    assert " ".join(large[10:]) == planned.document["candidates"][0]["why"]
    assert (small[:3], small[-1]) == (["→", "×1", "0.9"], "fits")


def test_nothing_that_fits_is_told_to_people_as_a_table_too(
    infeasible: Ended, stand_in: Callable[[str], Path], cli: Cli, bundle: Path
) -> None:
    document = {name: value for name, value in infeasible.document.items() if name != "error"}
    body = f"raise AgentError({infeasible.complaint!r}, ErrorCode.INFEASIBLE, {document!r})"
    told = cli("plan", bundle, "--config", stand_in(body))
    assert (told.code, told.complaint) == (6, infeasible.complaint)
    assert [tuple(row[:2]) for row in rows(told)][-2:] == [("×0.25", "0.5"), ("×0.25", "0.9")]


def test_how_the_choice_was_verified_and_what_is_in_doubt_is_told_below_the_table(
    planned: Ended, answering: Answering, cli: Cli, bundle: Path
) -> None:
    document = planned.document
    small = document["candidates"][1]
    document["chosen"] = document["candidates"][1] = small | {"doubts": ["it was loud", "it was hot"], "repeats": 1}
    told = cli("plan", bundle, "--config", answering(document)).out.splitlines()
    measured, computed = small["memory_measured_mb"], small["memory_mb"]
    assert told[-3:-1] == [
        f"verified width ×1, sparsity 0.9: {measured:.1f} MiB in a process of its own, {computed:.1f} computed",
        "in doubt width ×1, sparsity 0.9, although measured 2 times: it was loud; it was hot",
    ]


@pytest.mark.parametrize("name", ["plan.svg", "plan.png"])
def test_a_plan_is_drawn(name: str, planned: Ended, answering: Answering, cli: Cli, bundle: Path, tmp_path: Path) -> None:
    told = cli("plan", bundle, "--config", answering(planned.document), "--plot", tmp_path / name, "--json")
    assert (told.code, told.document) == (0, planned.document)
    assert (tmp_path / name).stat().st_size > 5000


def test_nothing_that_fits_is_drawn_too(
    infeasible: Ended, stand_in: Callable[[str], Path], cli: Cli, bundle: Path, tmp_path: Path
) -> None:
    document = {name: value for name, value in infeasible.document.items() if name != "error"}
    body = f"raise AgentError({infeasible.complaint!r}, ErrorCode.INFEASIBLE, {document!r})"
    told = cli("plan", bundle, "--config", stand_in(body), "--plot", tmp_path / "plan.svg", "--json")
    assert told.code == 6
    assert "nearest miss" in (tmp_path / "plan.svg").read_text()


def test_a_picture_of_an_unknown_kind_is_refused(cli: Cli, bundle: Path, tmp_path: Path) -> None:
    told = cli("plan", bundle, "--plot", tmp_path / "plan.jpg", "--json")
    assert told.code == 2
    told.error("SCHEMA")
    assert told.complaint == f"--plot {tmp_path / 'plan.jpg'}: name a file that ends in .png or .svg"


def test_an_unmeasured_candidate_says_so(planned: Ended, answering: Answering, cli: Cli, bundle: Path) -> None:
    document = planned.document
    document["candidates"][0] |= {"feasible": None, "why": "whatever"}
    assert rows(cli("plan", bundle, "--config", answering(document)))[0][-2:] == ["not", "measured"]


@pytest.mark.parametrize(
    ("words", "where"),
    [
        (("--latency-ms", 0), "budget.latency_ms"),
        (("--model-mb", -1), "budget.model_mb"),
        (("--sparsity", 1), "sparsity"),
        (("--sparsities", -0.5), "sparsities[0]"),
        (("--width-multipliers", 1, 1.1), "width_multipliers[1]"),
        (("--min-width", 0), "method.min_width"),
        (("--width-multiplier", 0), "method.width_multiplier"),
        (("--width-multiplier", 1.5), "method.width_multiplier"),
        (("--width-multiple", 300), "method.width_multiple"),
    ],
    ids=str,
)
def test_arguments_that_make_no_plan(words: tuple[object, ...], where: str, cli: Cli, bundle: Path) -> None:
    ended = cli("plan", bundle, *words, "--json")
    assert ended.code == 2
    ended.error("SCHEMA")
    assert ended.complaint.startswith(f"wrong arguments: {where}: Expected ")


def test_a_bundle_that_is_not_there(cli: Cli, tmp_path: Path) -> None:
    ended = cli("plan", tmp_path / "nowhere", "--json")
    assert ended.code == 4
    ended.error("BAD_BUNDLE")
