"""The table of one model, and what it says in plain lines."""

from __future__ import annotations

from collections.abc import Mapping

from accuracy.arms import ARMS, MIDDLE, NARROWER, RIVALS, as_fast_as
from accuracy.summary import Row

TIE = 0.3
"""Points; a smaller difference says nothing, nor does one inside the spread over seeds."""

EQUALLY_FAST = 1.1
"""Ratio of latencies beyond which a comparison is not one at equal latency, and says so."""

HEAD = ("arm", "accuracy", "bytes", "stored", "non-zero", "MACs", "p50", "p95", "faster")


def table(rows: Mapping[str, Row]) -> list[str]:
    """Return the lines of the table."""
    dense = rows.get("dense")
    lines = [HEAD, *(_cells(row, dense) for row in rows.values())]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    return [
        "  ".join(cell.ljust(width) if column == 0 else cell.rjust(width) for column, (cell, width) in enumerate(cells))
        for cells in (tuple(zip(line, widths, strict=True)) for line in lines)
    ]


def _cells(row: Row, dense: Row | None) -> tuple[str, ...]:
    faster = dense.p50 / row.p50 if dense is not None and dense.p50 and row.p50 else None
    name = _name(row)
    if row.search_seconds:
        name += f" ({row.search_seconds:.0f} s)"
    if row.diverged:
        name += f" ({row.diverged} diverged)"
    return (
        name,
        f"{row.accuracy:.1f} ± {row.spread:.1f} %",
        "–" if row.size is None else f"{row.size / 1e3:,.0f} kB",
        f"{row.params / 1e3:,.0f} k",
        f"{row.nonzero / 1e3:,.0f} k",
        f"{row.macs / 1e6:,.1f} M",
        "–" if row.p50 is None else f"{row.p50:.3f} ms",
        "–" if row.p95 is None else f"{row.p95:.3f} ms",
        "–" if faster is None else f"{faster:.2f}×",
    )


def verdicts(rows: Mapping[str, Row]) -> list[str]:
    """Return what follows from the rows, one line for each question that they can answer."""
    narrower = ["dense", *(f"narrower ×{share:g}" for share in NARROWER)]
    pairs = [(as_fast_as(rival), name) for rival, name in zip(RIVALS, narrower, strict=False)]
    pairs += [(as_fast_as(rival), name) for rival, name in zip(RIVALS, narrower[1:], strict=True)]
    middle = as_fast_as(MIDDLE)
    pairs += [(middle, name) for name, arm in ARMS.items() if arm.family == "criteria"]
    pairs += [
        (middle, "search"),
        (middle, "filter norm"),
        ("mean/sqrt/masked", "unstructured"),
        ("mean/sqrt/masked", "mean/density/masked"),
        ("mean/sqrt/dense", "mean/density/dense"),
        ("mean/sqrt/masked", "mean/sqrt/dense"),
        ("mean/sqrt/masked", "permuted"),
    ]
    lines = [_compared(rows[one], rows[other]) for one, other in pairs if one in rows and other in rows]
    if "shrink" in rows:
        lines += [_frontier(rows, "shrink", name, label) for name, label in (("p50", "latency"), ("size", "bytes"))]
    return [line for line in lines if line]


def difference(one: Row, other: Row) -> tuple[float, float, str]:
    """Return the points by which ``one`` is better, the larger of the two spreads, and what that amounts to."""
    points = one.accuracy - other.accuracy
    spread = max(one.spread, other.spread)
    if abs(points) < TIE or abs(points) <= spread:
        return points, spread, "a tie"
    return points, spread, "better" if points > 0 else "worse"


def _compared(one: Row, other: Row) -> str:
    points, spread, verdict = difference(one, other)
    seeds = min(one.seeds, other.seeds)
    over = f"spread {spread:.1f}" if seeds > 1 else "one seed, spread unknown"
    costs = ""
    if one.size and other.size and one.p50 and other.p50:
        slower = one.p50 / other.p50
        costs = f"; {one.size / other.size:.2f}× the bytes, {slower:.2f}× the latency"
        if max(slower, 1 / slower) > EQUALLY_FAST:
            pace = "slower" if slower > 1 else "faster"
            contrary = (verdict == "worse") == (pace == "faster")
            verdict += f", {'but' if contrary else 'and'} {pace}"
    return f"{_name(one)} against {_name(other)}: {points:+.1f} points ({over}): {verdict}{costs}"


def _name(row: Row) -> str:
    return row.arm.name if row.multiplier is None else f"{row.arm.name} (α {row.multiplier:g})"


def _frontier(rows: Mapping[str, Row], arm: str, attribute: str, label: str) -> str:
    """Say whether an arm is on the frontier of accuracy over ``attribute``, of which less is better."""
    mine = rows[arm]
    cost = getattr(mine, attribute)
    if cost is None:
        return ""
    better = [
        row
        for row in rows.values()
        if row is not mine
        and getattr(row, attribute) is not None
        and row.accuracy >= mine.accuracy
        and getattr(row, attribute) <= cost
        and (row.accuracy > mine.accuracy or getattr(row, attribute) < cost)
    ]
    if not better:
        return f"{_name(mine)} is on the frontier of accuracy over {label}"
    best = max(better, key=lambda row: row.accuracy)
    points, _, verdict = difference(best, mine)
    return (
        f"{_name(mine)} is not on the frontier of accuracy over {label}: {_name(best)} is {points:+.1f} points ({verdict}) "
        f"at {getattr(best, attribute) / cost:.2f}× the {label}"
    )
