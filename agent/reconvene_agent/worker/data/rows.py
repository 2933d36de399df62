"""Lines of CSV as numbers, one at a time: strict, in bounded memory, every line that is none of ours named with its number."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

LABEL = "label"
"""The name of the column that holds the class."""
MAX_LINE = 1 << 16
MAX_NUMBER = 3.4028234663852886e38
"""The largest that float32 holds."""


class HeaderError(Exception):
    """The first line does not say what is needed."""


@dataclass(frozen=True)
class Row:
    """A line of the file, counted from 1: its numbers and its class, or what is wrong with it."""

    line: int
    numbers: tuple[float, ...] = ()
    label: str = ""
    wrong: str = ""


def read(file: IO[bytes], columns: int, labelled: bool) -> Iterator[Row]:
    """Yield the lines below the header, blank ones left out; ``columns`` is how many numbers each must hold.

    A file that is ``labelled`` has a header that names its columns, one of them ``label``. Any other may have one: a first line
    without a single number is taken for it.

    Raises:
        HeaderError: the columns are not those that are needed.
    """
    number, place = 0, None
    if labelled:
        number, place = 1, _label_place(file.readline(MAX_LINE), columns)
    while True:
        number += 1
        content = file.readline(MAX_LINE)
        if not content:
            return
        if len(content) == MAX_LINE and not content.endswith(b"\n"):
            _skip_line(file)
            yield Row(number, wrong=f"the line is longer than {MAX_LINE} bytes")
            continue
        if not content.strip():
            continue
        row = _row(number, content, columns, place)
        if row.wrong and number == 1 and _may_be_header(content):
            continue
        yield row


def _row(number: int, content: bytes, columns: int, place: int | None) -> Row:
    try:
        fields = _fields(content)
    except ValueError as error:
        return Row(number, wrong=str(error))
    label = ""
    expected = columns if place is None else columns + 1
    if len(fields) != expected:
        return Row(number, wrong=f"{len(fields)} columns where there must be {expected}")
    if place is not None:
        label = fields.pop(place).strip()
        if not label:
            return Row(number, wrong="it has no label")
    values = []
    for field in fields:
        value = _number(field)
        if value is None:
            return Row(number, wrong=f"{field.strip()[:40]!r} is not a finite number")
        values.append(value)
    return Row(number, tuple(values), label)


def _number(field: str) -> float | None:
    """Return a number as people and loggers write it, and as float32 can hold it; None where it is none."""
    text = field.strip()
    if "_" in text or not text.isascii():  # Python reads more than that
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and abs(value) <= MAX_NUMBER else None


def _fields(content: bytes) -> list[str]:
    """Return the fields of one line; raise ValueError where it is no CSV."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    if "\0" in text:
        raise ValueError("it holds a zero byte")
    try:
        # One at a time: an open quotation mark must not swallow the lines below it.
        rows = list(csv.reader([text.rstrip("\r\n")], strict=True))
    except csv.Error as error:
        raise ValueError(str(error)) from None
    return rows[0] if rows else []


def _label_place(header: bytes, columns: int) -> int:
    try:
        names = [name.strip() for name in _fields(header)]
    except ValueError as error:
        raise HeaderError(f"its first line: {error}") from None
    if names.count(LABEL) != 1:
        raise HeaderError(f"its first line must name the columns, one of them {LABEL!r}")
    if len(names) != columns + 1:
        raise HeaderError(f"it has {len(names) - 1} columns beside {LABEL!r} where the model takes {columns}")
    return names.index(LABEL)


def _may_be_header(content: bytes) -> bool:
    try:
        return all(_number(field) is None for field in _fields(content))
    except ValueError:
        return False


def _skip_line(file: IO[bytes]) -> None:
    while (rest := file.readline(MAX_LINE)) and not rest.endswith(b"\n"):
        pass
