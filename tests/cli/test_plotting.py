"""A plan drawn as a picture; what it shows is read back from the SVG."""

from __future__ import annotations

import builtins
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from reconvene_agent.cli import plotting
from reconvene_agent.core.errors import AgentError, ErrorCode, UsageError
from support.disks import fill, tiny_disk

SVG = "{http://www.w3.org/2000/svg}"
PNG = b"\x89PNG\r\n\x1a\n"


def candidate(width: float, sparsity: float, p95: float | None = None, **more: object) -> dict[str, Any]:
    latency = None if p95 is None else {"p50": 0.8 * p95, "p95": p95, "runs": 100, "spread": 0.1}
    size = int(4e6 * width * (1 - sparsity)) + 1000
    fields = {"doubts": (), "memory_mb": 3 + 2 * size / 2**20, "memory_measured_mb": None, "latency_ms": latency, **more}
    return {"width_multiplier": width, "sparsity": sparsity, "bytes": size, **fields}


@pytest.fixture
def document() -> dict[str, Any]:
    candidates = [candidate(width, sparsity) for width in (1.0, 0.5) for sparsity in (0.0, 0.5, 0.9)]
    candidates[0] = candidate(1.0, 0.0, 9.0, doubts=("other processes took 50% of the processors",))
    candidates[3] = candidate(0.5, 0.0, 3.0, memory_measured_mb=7.5)
    budget = {name: {"value": value, "source": "test"} for name, value in (("latency_ms", 5.0), ("memory_mb", 5000.0))}
    return {"budget": budget, "candidates": candidates, "chosen": candidates[3], "nearest_miss": None}


def texts(path: Path) -> str:
    """Return the words of an SVG."""
    return "\n".join("".join(element.itertext()).strip() for element in ElementTree.parse(path).iter(f"{SVG}text"))


def test_the_picture_names_widths_limits_and_the_choice(document: dict[str, Any], tmp_path: Path) -> None:
    plotting.draw(document, tmp_path / "plan.svg")
    words = texts(tmp_path / "plan.svg")
    for expected in ("width ×1", "width ×0.5", "latency_ms 5", "memory_mb 5000 ↑", "chosen", "sparsity", "ONNX file, MiB"):
        assert expected in words.splitlines(), expected
    assert "nearest miss" not in words


def test_the_same_plan_makes_the_same_file(document: dict[str, Any], tmp_path: Path) -> None:
    for name in ("one.svg", "other.svg", "one.png", "other.PNG"):
        plotting.draw(document, tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "other.svg").read_bytes()
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "other.PNG").read_bytes()
    assert (tmp_path / "one.png").read_bytes().startswith(PNG)


def test_what_was_measured_is_filled_and_what_was_not_is_hollow(document: dict[str, Any]) -> None:
    from matplotlib.figure import Figure

    latency, memory = Figure().subplots(1, 2)
    plotting._draw_latency(latency, document)
    plotting._draw_costs(memory, document, "memory_mb", "memory", plotting._memory, plotting._memory_measured)

    def points(axes: Any) -> dict[tuple[float, float], bool]:
        """Return the points of both widths: whether they are filled."""
        dots = [line for line in axes.get_lines() if line.get_marker() == "o" and len(line.get_xdata()) == 1]
        return {
            (line.get_xdata()[0], line.get_ydata()[0]): line.get_markerfacecolor() not in ("white", "none")
            for line in dots
            if line.get_markersize() < 10
        }

    assert points(latency) == {(0.0, 9.0): False, (0.0, 3.0): True}
    filled = points(memory)
    assert len(filled) == 6
    assert [place for place, solid in filled.items() if solid] == [(0.0, 7.5)]
    circles = [line for axes in (latency, memory) for line in axes.get_lines() if line.get_label() == "chosen"]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in circles] == [(0.0, 3.0), (0.0, 7.5)]


def test_where_nothing_fits_the_nearest_miss_is_marked(document: dict[str, Any], tmp_path: Path) -> None:
    miss = {"width_multiplier": 0.5, "sparsity": 0.9, "limit": "latency_ms", "value": 6.0, "allowed": 5.0}
    plotting.draw(document | {"chosen": None, "nearest_miss": miss}, tmp_path / "plan.svg")
    words = texts(tmp_path / "plan.svg").splitlines()
    assert "nearest miss" in words
    assert "chosen" not in words


def test_where_nothing_was_measured_the_picture_says_so(document: dict[str, Any], tmp_path: Path) -> None:
    for each in document["candidates"]:
        each["latency_ms"] = None
    plotting.draw(document | {"chosen": None}, tmp_path / "plan.svg")
    assert texts(tmp_path / "plan.svg").splitlines().count("nothing measured") == 1


@pytest.mark.parametrize("change", [{"budget": {}}, {"candidates": [], "chosen": None}])
def test_a_plan_with_little_in_it_is_drawn_too(change: dict[str, Any], document: dict[str, Any], tmp_path: Path) -> None:
    plotting.draw(document | change, tmp_path / "plan.png")
    assert (tmp_path / "plan.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("plan.pdf", "name a file that ends in .png or .svg"),
        ("plan", "name a file that ends in .png or .svg"),
        ("nowhere/plan.svg", "there is no folder"),
        ("folder.svg", "is a folder: name a file"),
    ],
)
def test_a_picture_that_cannot_be_drawn_is_refused_before_anything_is_done(name: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "folder.svg").mkdir()
    with pytest.raises(UsageError, match=complaint):
        plotting.check(tmp_path / name)


def test_without_matplotlib_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] == "matplotlib":
            raise ModuleNotFoundError(name)
        return original(name, *rest)

    monkeypatch.delitem(sys.modules, "matplotlib", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match=r"^--plot needs matplotlib: install 'reconvene-agent\[plot\]'$"):
        plotting.check(tmp_path / "plan.svg")


def test_a_full_disk_is_told(document: dict[str, Any], tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", "256k") as disk:
        fill(disk)
        with pytest.raises(AgentError) as caught:
            plotting.draw(document, disk / "plan.png")
        assert caught.value.code is ErrorCode.NO_DISK
        assert not (disk / "plan.png").exists()
