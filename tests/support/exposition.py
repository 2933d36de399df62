"""A strict reader of Prometheus' text exposition format, as far as gauges and counters go."""

from __future__ import annotations

import re

from msgspec import Struct

_HELP = re.compile(r"# HELP ([a-zA-Z_:][a-zA-Z0-9_:]*) (\S.*)")
_TYPE = re.compile(r"# TYPE ([a-zA-Z_:][a-zA-Z0-9_:]*) (gauge|counter)")
_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (NaN|[+-]Inf|[+-]?[0-9.]+(?:e[+-]?[0-9]+)?)")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"(?:,|$)')
_UNESCAPED = {r"\\": "\\", r"\"": '"', r"\n": "\n"}


class Family(Struct):
    """A metric: its type, and the value under each set of labels."""

    type: str
    values: dict[tuple[tuple[str, str], ...], float]

    @property
    def value(self) -> float:
        """The value of the only sample."""
        (value,) = self.values.values()
        return value


def parse(text: str) -> dict[str, Family]:
    """Return the metrics by name; raise AssertionError for what Prometheus does not take, or its conventions advise against."""
    assert text.endswith("\n")
    found: dict[str, Family] = {}
    helped = ""
    current = ""
    for line in text[:-1].split("\n"):
        if match := _HELP.fullmatch(line):
            helped = match[1]
            assert helped not in found, "each metric stands in one place"
        elif match := _TYPE.fullmatch(line):
            current = match[1]
            assert current == helped, "help comes right before the type"
            assert (match[2] == "counter") == current.endswith("_total"), "counters are totals"
            found[current] = Family(match[2], {})
        else:
            sample = _SAMPLE.fullmatch(line)
            assert sample, line
            assert sample[1] == current, line
            labels = _labels(sample[2] or "")
            assert labels not in found[current].values, "one value under each set of labels"
            found[current].values[labels] = float(sample[3])
    assert all(family.values for family in found.values())
    return found


def _labels(text: str) -> tuple[tuple[str, str], ...]:
    labels: list[tuple[str, str]] = []
    position = 0
    while position < len(text):
        match = _LABEL.match(text, position)
        assert match, text
        labels.append((match[1], re.sub(r'\\[\\"n]', lambda escape: _UNESCAPED[escape[0]], match[2])))
        position = match.end()
    return tuple(labels)
