"""NumPy archives: ``x`` and ``y``, and ``x_val`` and ``y_val`` where the held-out part is given."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.worker.data.archive import Header, NpzFile
from reconvene_agent.worker.data.cache import Dtype, Found, Sink
from reconvene_agent.worker.data.folders import MAX_UNUSABLE_SHARE, Report
from reconvene_agent.worker.data.inputs import Inputs, items, kind_of
from reconvene_agent.worker.data.skipped import Skipping
from reconvene_agent.worker.data.split import held_out

_NAMES = ("x", "y", "x_val", "y_val")


class ArrayFile:
    """An archive of inputs ``x`` and class numbers ``y`` (N,).

    ``x`` is images (N, H, W), (N, H, W, C) or (N, C, H, W), uint8 or 0..1; windows (N, L), (N, L, C) or (N, C, L), or rows
    of features (N, F), integers or floats of any size. Where sides are equal, channels are taken to come first. Rows that
    hold values that are not finite are skipped.
    """

    def __init__(self, path: Path, spec: ModelSpec, labels: Sequence[str], validation: float, report: Report) -> None:
        """Look what arrays there are.

        Raises:
            AgentError: BAD_DATA when the file is damaged or its arrays do not fit the bundle.
        """
        self._facts = path.stat()
        self._path = path
        self._spec = spec
        self._kind = kind_of(spec.input)
        self._labels = tuple(labels)
        self._validation = validation
        self._report = report
        self._archive = NpzFile(path)
        headers = self._archive.headers()
        self._arrays = {name: headers[name] for name in _NAMES if name in headers}
        if not {"x", "y"} <= set(headers) or ("x_val" in headers) != ("y_val" in headers):
            found = ", ".join(headers) or "no named arrays"
            raise AgentError(
                f"{path} must hold x and y, and x_val and y_val both or neither; it holds {found}", ErrorCode.BAD_DATA
            )
        self._sides = ("x", "x_val") if "x_val" in headers else ("x",)
        for name in self._sides:
            self._check(self._arrays[name], self._arrays[name.replace("x", "y")])
        self.shape = spec.input
        self.dtype: Dtype = np.dtype(np.uint8) if self._kind == "image" else np.dtype(np.float32)
        self._count = sum(self._arrays[name].shape[0] for name in self._sides)
        self.least_bytes = self._count * int(np.prod(spec.input)) * self.dtype.itemsize

    def files(self) -> Iterable[tuple[str, int, int]]:
        return [(self._path.name, self._facts.st_size, self._facts.st_mtime_ns)]

    def fill(self, sink: Sink) -> Found:
        """Take every row.

        Raises:
            AgentError: BAD_DATA when the file is damaged further in, or its numbers are none that can be used.
        """
        skipping = Skipping()
        done = 0
        for name in self._sides:
            classes = self._classes(self._arrays[name.replace("x", "y")])
            start = 0
            for raw in self._archive.rows(self._arrays[name]):
                self._report(done / max(1, self._count), f"reading row {done + 1} of {self._count}")
                some = classes[start : start + len(raw)]
                fit = self._fitting(name, raw)
                good = self._finite(name, start, fit, skipping)
                self._put(sink, fit[good], some[good], name)
                start += len(raw)
                done += len(raw)
        skipped = skipping.outcome()
        if skipped.unusable > MAX_UNUSABLE_SHARE * self._count:
            raise AgentError(
                f"{self._path}: {skipped.unusable} of {self._count} rows hold values that are not finite, such as "
                f"{skipped.named()[0]}: mend them",
                ErrorCode.BAD_DATA,
            )
        return Found(self._labels, skipped)

    def _check(self, x: Header, y: Header) -> None:
        if not x.shape or y.shape != x.shape[:1] or not np.issubdtype(y.dtype, np.integer):
            raise self._refused(f"the classes must be one whole number for each {items(self._kind, 1)} of {x.name}")
        sides = x.shape[1:]
        channels, places = self._spec.input[0], self._spec.input[1:]
        if sides not in (self._spec.input, *(((*places, channels),) if places else ()), *((places,) if channels == 1 else ())):
            found, expected = ("×".join(map(str, each)) for each in (sides, self._spec.input))
            raise self._refused(
                f"{items(self._kind)} of {found or 'a single number'} do not fit the bundle's input of {expected}"
            )
        if self._kind == "image":
            if x.dtype != np.uint8 and not np.issubdtype(x.dtype, np.floating):
                raise self._refused("pixels must be uint8, or numbers between 0 and 1")
        elif not np.issubdtype(x.dtype, np.integer) and not np.issubdtype(x.dtype, np.floating):
            raise self._refused(f"{x.name} must hold integers or floats, not {x.dtype}")

    def _classes(self, header: Header) -> NDArray[np.int64]:
        y = self._archive.array(header)
        if len(y) and (y.min() < 0 or y.max() >= self._spec.classes):
            raise self._refused(f"class numbers must lie between 0 and {self._spec.classes - 1}")
        return y.astype(np.int64)

    def _fitting(self, name: str, raw: NDArray[Any]) -> Inputs:
        """Return some rows as the model takes them: channels first, images as levels, anything else as float32."""
        x = raw
        if raw.shape[1:] != self._spec.input:
            x = np.moveaxis(raw, -1, 1) if raw.ndim == 1 + len(self._spec.input) else raw[:, np.newaxis]
        if self._kind != "image":
            with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is skipped
                return np.ascontiguousarray(x, dtype=np.float32)
        if x.dtype == np.uint8:
            return np.ascontiguousarray(x)
        if x.min(initial=0.0) >= 0.0 and x.max(initial=1.0) <= 1.0:
            return np.ascontiguousarray(np.rint(x.astype(np.float32) * 255.0), dtype=np.uint8)
        raise self._refused(f"pixels must be uint8, or numbers between 0 and 1, in {name} too")

    def _finite(self, name: str, start: int, inputs: Inputs, skipping: Skipping) -> NDArray[np.bool_]:
        good = np.asarray(np.isfinite(inputs).all(axis=tuple(range(1, inputs.ndim))))
        for row in np.flatnonzero(~good):
            skipping.skip("malformed", f"{name} row {start + row}", "it holds values that are not finite")
        return good

    def _put(self, sink: Sink, inputs: Inputs, classes: NDArray[np.int64], name: str) -> None:
        if len(self._sides) > 1:
            sink.put(inputs, classes, name == "x_val")
            return
        aside = np.array([held_out(each.tobytes(), self._validation) for each in inputs], dtype=bool)
        for side in (False, True):
            sink.put(inputs[aside == side], classes[aside == side], side)

    def _refused(self, text: str) -> AgentError:
        return AgentError(f"{self._path}: {text}", ErrorCode.BAD_DATA)
