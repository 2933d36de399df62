"""``prune``: its document, its table, and where it writes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.commandline import Cli, Ended, command, configured
from support.disks import tiny_disk

LAYER = ("name", "weights", "kept", "density", "verdict", "width_before", "width_after", "frozen")


def test_the_document_of_a_pruning(pruned: Ended) -> None:
    assert pruned.code == 0
    document = pruned.document
    assert set(document) == {"layers", "params", "macs", "seconds", "peak_rss_mb", "sparsity", "out"}
    assert all(tuple(layer) == LAYER for layer in document["layers"])
    assert list(document["params"]) == ["dense", "stored", "nonzero"]
    assert list(document["macs"]) == ["dense", "pruned"]
    assert list(document["seconds"]) == ["open", "design", "build", "write", "total"]
    assert document["sparsity"] == 0.9


def test_the_figures_of_a_pruning_agree_with_each_other(pruned: Ended) -> None:
    document = pruned.document
    layers, params, macs, seconds = (document[name] for name in ("layers", "params", "macs", "seconds"))
    weights = sum(layer["weights"] for layer in layers)
    assert sum(layer["kept"] for layer in layers) == pytest.approx(0.1 * weights, rel=0.02)
    assert all(layer["density"] == pytest.approx(layer["kept"] / layer["weights"], abs=1e-6) for layer in layers)
    assert {layer["verdict"] for layer in layers} == {"sensitive", "resilient"}
    assert all(layer["width_before"] == layer["width_after"] for layer in layers if layer["verdict"] == "sensitive")
    assert weights < params["dense"]
    assert params["nonzero"] < params["stored"] < params["dense"] / 5
    assert macs["pruned"] < macs["dense"]
    assert seconds["total"] == pytest.approx(sum(seconds.values()) - seconds["total"], abs=0.001)
    assert document["peak_rss_mb"] > 50


def test_the_small_model_lies_where_it_was_wanted(pruned: Ended) -> None:
    out = Path(pruned.document["out"])
    assert sorted(path.name for path in out.iterdir()) == ["pruned.json", "pruned.safetensors"]


def test_a_pruning_is_told_to_people_as_a_table(
    pruned: Ended, answering: Callable[[dict[str, Any]], Path], cli: Cli, bundle: Path, tmp_path: Path
) -> None:
    document = pruned.document
    words = ("prune", bundle, "--sparsity", 0.9, "--out", tmp_path / "out", "--config", answering(document))
    told = cli(*words)
    assert (told.code, told.err) == (0, "")
    headings, *rows = told.out.splitlines()
    assert headings.split() == ["layer", "weights", "kept", "density", "verdict", "width"]
    layers = document["layers"]
    for layer, row in zip(layers, rows, strict=False):
        assert row.split()[:2] == [layer["name"], f"{layer['weights']:,}"]
        changed = layer["width_before"] != layer["width_after"]
        assert row.split()[4:] == [
            layer["verdict"],
            str(layer["width_before"]),
            *(("→", str(layer["width_after"])) if changed else ()),
        ]
    assert [line.split()[0] for line in rows[len(layers) : -1]] == ["parameters", "non-zero", "MACs"]
    assert rows[-1].endswith(f" s, in {document['out']}")


@pytest.mark.parametrize("sparsity", [-0.1, 1, 1e999])
def test_a_sparsity_that_is_none(sparsity: float, cli: Cli, bundle: Path, tmp_path: Path) -> None:
    ended = cli("prune", bundle, "--sparsity", sparsity, "--out", tmp_path / "out", "--json")
    assert ended.code == 2
    ended.error("SCHEMA")
    assert "sparsity" in ended.complaint
    assert not (tmp_path / "out").exists()


def test_an_unknown_criterion_is_told_with_the_known_ones(cli: Cli, bundle: Path, tmp_path: Path) -> None:
    ended = cli("prune", bundle, "--sparsity", 0.9, "--criterion", "fisher", "--out", tmp_path / "out")
    assert ended.code == 2
    assert "argument --criterion: invalid choice: 'fisher'" in ended.err
    assert all(name in ended.err for name in ("magnitude", "random", "uniform", "erk", "synflow", "snip", "grasp"))


@pytest.mark.parametrize("criterion", ["snip", "grasp"])
def test_a_criterion_without_its_data_names_the_option(criterion: str, bundle: Path, tmp_path: Path) -> None:
    ended = command("prune", bundle, "--sparsity", 0.9, "--criterion", criterion, "--out", tmp_path / "out", "--json")
    assert ended.code == 2
    ended.error("SCHEMA")
    assert ended.complaint.startswith(f"the criterion {criterion} scores by the loss on local data: name some with --data")
    assert not (tmp_path / "out").exists()


def test_local_data_may_lie_beside_the_caller(bundle: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(data.parent)
    words = ("--criterion", "snip", "--data", data.name, "--out", tmp_path / "out", "--threads", 1, "--json")
    ended = command("prune", bundle, "--sparsity", 0.9, *words)
    assert ended.code == 0, ended.err
    layers = ended.document["layers"]
    assert sum(layer["kept"] for layer in layers) == round(0.1 * sum(layer["weights"] for layer in layers))


def test_a_criterion_that_does_not_fit_is_told_with_the_figures(bundle: Path, data: Path, tmp_path: Path) -> None:
    config = configured(tmp_path, budget={"training_memory_mb": 2.0})
    words = ("--criterion", "grasp", "--data", data, "--out", tmp_path / "out", "--config", config, "--json")
    ended = command("prune", bundle, "--sparsity", 0.9, *words)
    assert ended.code == 7
    ended.error("NO_MEMORY")
    assert re.search(r"about \d+ MiB, and 2 MiB are allowed", ended.complaint)


def test_a_bundle_that_is_none(cli: Cli, tmp_path: Path) -> None:
    ended = cli("prune", tmp_path, "--sparsity", 0.9, "--out", tmp_path / "out")
    assert (ended.code, ended.complaint) == (4, f"{tmp_path} is not a bundle: it has no bundle.toml")


def test_a_file_in_the_place_of_the_output_stays(cli: Cli, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    ended = cli("prune", bundle, "--sparsity", 0.9, "--out", tmp_path / "out")
    assert (ended.code, ended.complaint) == (2, f"{tmp_path}/out is a file: name a folder")
    assert (tmp_path / "out").read_text() == "mine"


def test_a_full_disk_is_told_and_nothing_half_written_is_left(bundle: Path, tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", "64k") as disk:
        ended = command("prune", bundle, "--sparsity", 0.5, "--out", disk / "out", "--json")
        assert [path for path in disk.rglob("*") if path.is_file()] == []
    assert ended.code == 7
    assert ended.error("NO_DISK")["error"]["retryable"] is True
    assert ended.complaint.startswith("no space left on the disk while writing ")
