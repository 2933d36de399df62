"""``bench``: its document and its table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.commandline import Cli, Disturbed, Ended


def test_the_document_of_a_bench(benched: Ended, disturbed: Disturbed) -> None:
    assert benched.code == 0
    document = benched.document
    assert set(document) == {"dense", "pruned", "ratio", "threads", "providers"}
    for side in ("dense", "pruned"):
        assert list(document[side]) == ["bytes", "params", "macs", "latency_ms"]
        assert set(document[side]["latency_ms"]) == {"p50", "p95", "runs", "spread"}
    assert set(document["ratio"]) == {"bytes", "params", "macs", "latency_p50"}
    assert (document["threads"], document["providers"]) == (1, ["CPUExecutionProvider"])
    assert document["pruned"]["bytes"] == disturbed.third.document["release"]["bytes"]


def test_every_ratio_is_dense_over_pruned(benched: Ended) -> None:
    document = benched.document
    dense, pruned, ratio = document["dense"], document["pruned"], document["ratio"]
    for name in ("bytes", "params", "macs"):
        assert ratio[name] == pytest.approx(dense[name] / pruned[name], abs=0.001)
    assert ratio["latency_p50"] == pytest.approx(dense["latency_ms"]["p50"] / pruned["latency_ms"]["p50"], rel=0.02)
    assert dense["latency_ms"]["runs"] == pruned["latency_ms"]["runs"] > 0, "in turn"


def test_a_bench_is_told_to_people_as_a_table(
    benched: Ended, answering: Callable[[dict[str, Any]], Path], cli: Cli, bundle: Path, tmp_path: Path
) -> None:
    document = benched.document
    told = cli("bench", bundle, tmp_path, "--config", answering(document))
    assert (told.code, told.err) == (0, "")
    headings, *rows, last = told.out.splitlines()
    assert headings.split() == ["dense", "pruned", "ratio"]
    assert [row.split()[0] for row in rows] == ["ONNX", "parameters", "MACs", "latency", "latency"]
    assert rows[1].split()[1:] == [
        f"{document['dense']['params']:,}",
        f"{document['pruned']['params']:,}",
        f"{document['ratio']['params']:.2f}×",
    ]
    assert rows[3].startswith("latency p50")
    assert last == "batch 1, threads: 1, CPUExecutionProvider"


@pytest.mark.parametrize("seconds", [0, -1, 3601])
def test_seconds_that_cannot_be_measured(seconds: float, cli: Cli, bundle: Path, tmp_path: Path) -> None:
    ended = cli("bench", bundle, tmp_path, "--seconds", seconds)
    assert (ended.code, ended.complaint) == (2, "--seconds must lie between 0 and 3600")


def test_a_bundle_that_is_none(cli: Cli, tmp_path: Path) -> None:
    ended = cli("bench", tmp_path, tmp_path, "--json")
    assert ended.code == 4
    ended.error("BAD_BUNDLE")
