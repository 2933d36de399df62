"""Results on disk: one JSON file, replaced atomically after every finished run, so that a killed benchmark goes on."""

from __future__ import annotations

import fcntl
import json
import math
from pathlib import Path
from typing import Any, TextIO

from accuracy.arms import ARMS
from accuracy.settings import Settings
from reconvene_agent.core import atomic

Record = dict[str, Any]

FILE = "results.json"
FORMAT = 1


class Store:
    """The file of one result folder; one process at a time may have it open for writing."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / FILE
        self._lock: TextIO = (folder / ".lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.close()
            raise SystemExit(f"another benchmark is writing to {folder}: wait for it, or name another --out") from None
        self._document: dict[str, Any] = {"format": FORMAT, "matches": [], "runs": [], "latencies": []}
        if self._path.exists():
            try:
                self._document = json.loads(self._path.read_text())
                known = self._document["format"] == FORMAT
            except (ValueError, KeyError, TypeError):
                known = False
            if not known:
                raise SystemExit(f"{self._path} is not a result file of this benchmark: name another --out")

    def close(self) -> None:
        """Let others write to the folder."""
        self._lock.close()

    def _save(self) -> None:
        # One record a line: short, and differences stay readable.
        lines = [f' "format": {FORMAT}']
        for name in ("matches", "runs", "latencies"):
            rows = ",\n  ".join(json.dumps(row, ensure_ascii=False) for row in self._document[name])
            lines.append(f' "{name}": [\n  {rows}\n ]' if rows else f' "{name}": []')
        atomic.write_bytes(self._path, ("{\n" + ",\n".join(lines) + "\n}\n").encode())

    def runs(self, settings: Settings) -> list[Record]:
        """Return the finished runs of these settings that belong to arms of today, and to the multipliers now stored."""
        matches = self.matches(settings)
        return [run for run in self._of(settings) if run["arm"] in ARMS and run["match"] == matches.get(run["arm"])]

    def add_run(self, record: Record) -> None:
        self._document["runs"].append(record)
        self._save()

    def seconds(self, settings: Settings, arm: str) -> float:
        """Return how long such a run last took, or not a number when there has been none."""
        known = [run["seconds"] for run in self._of(settings) if run["arm"] == arm]
        return float(known[-1]) if known else math.nan

    def mean_seconds(self, settings: Settings) -> float:
        """Return how long a run of these settings takes, or not a number when there has been none."""
        known = [run["seconds"] for run in self._of(settings)]
        return sum(known) / len(known) if known else math.nan

    def _of(self, settings: Settings) -> list[Record]:
        wanted = settings.document()
        return [run for run in self._document["runs"] if run["settings"] == wanted]

    def matches(self, settings: Settings) -> dict[str, float]:
        """Return the width multipliers with which ours are as fast as their rivals, by arm; empty when not yet found."""
        row = self._match(settings)
        return {} if row is None else {key: found["multiplier"] for key, found in row["found"].items()}

    def set_matches(self, settings: Settings, found: dict[str, Record]) -> None:
        old = self._match(settings)
        if old is not None:
            self._document["matches"].remove(old)
        self._document["matches"].append({**_shape_of(settings), "found": found})
        self._save()

    def _match(self, settings: Settings) -> Record | None:
        wanted = _shape_of(settings)
        return next((row for row in self._document["matches"] if all(row[key] == wanted[key] for key in wanted)), None)

    def latencies(self) -> dict[str, Record]:
        """Return what was measured, by the digest of the shape."""
        return {row["shape"]: row for row in self._document["latencies"]}

    def set_latencies(self, rows: list[Record]) -> None:
        """Store measurements; older ones of the same shapes are replaced."""
        kept = {**self.latencies(), **{row["shape"]: row for row in rows}}
        self._document["latencies"] = list(kept.values())
        self._save()


def _shape_of(settings: Settings) -> Record:
    """Return the settings on which no latency but by them depends."""
    return {
        key: value for key, value in settings.document().items() if key in ("model", "base", "multiple", "sparsity", "classes")
    }
