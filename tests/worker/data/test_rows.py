from __future__ import annotations

import io
import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reconvene_agent.worker.data import rows
from reconvene_agent.worker.data.rows import HeaderError, Row

FLOATS = st.floats(allow_nan=False, allow_infinity=False, width=32)
LABELS = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=("Cs",)), min_size=1, max_size=12).filter(
    lambda text: bool(text.strip())
)


def read(content: bytes, columns: int = 2, labelled: bool = False) -> list[Row]:
    return list(rows.read(io.BytesIO(content), columns, labelled))


def wrong(content: bytes, labelled: bool = False) -> dict[int, str]:
    return {row.line: row.wrong for row in read(content, labelled=labelled) if row.wrong}


def test_numbers_are_read_as_loggers_write_them() -> None:
    content = b'\xef\xbb\xbf1,2\r\n -1.5e3 ,\t+0\n.5,"7"\n\n1e-40,3.4028234663852886e38'
    assert [row.numbers for row in read(content)] == [(1, 2), (-1500, 0), (0.5, 7), (1e-40, 3.4028234663852886e38)]


@pytest.mark.parametrize("header", [b"", b"x,y\n", b"time (s),acc [g]\r\n", b"one\n"])
def test_a_file_without_labels_may_have_a_header(header: bytes) -> None:
    found = read(header + b"1,2\n3,4\n")
    assert [row.numbers for row in found] == [(1, 2), (3, 4)]
    assert found[0].line == (2 if header else 1)


def test_a_first_line_that_is_damaged_is_no_header() -> None:
    assert wrong(b"1,oops\n3,4\n") == {1: "'oops' is not a finite number"}


@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_label_may_be_any_column(place: int) -> None:
    def line(label: str, *numbers: str) -> bytes:
        fields = list(numbers)
        fields.insert(place, label)
        return ",".join(fields).encode() + b"\n"

    (row,) = read(line("label", "a", "b") + line(' "walk, fast"'.strip(), "1", "2"), labelled=True)
    assert (row.numbers, row.label, row.line) == ((1, 2), "walk, fast", 2)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (b"", "must name the columns, one of them 'label'"),
        (b"1,2,3\n", "must name the columns, one of them 'label'"),
        (b"a,label,label\n", "must name the columns, one of them 'label'"),
        (b"a,label\n", "has 1 columns beside 'label' where the model takes 2"),
        (b"a,b,c,label\n", "has 3 columns beside 'label' where the model takes 2"),
        (b"a,\xff,label\n", "its first line: it is not UTF-8"),
        (b'a,"b,label\n', "its first line: "),
    ],
)
def test_a_labelled_file_needs_a_header_that_fits(header: bytes, said: str) -> None:
    with pytest.raises(HeaderError, match=said):
        read(header + b"1,2,cat\n", labelled=True)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"1", "1 columns where there must be 2"),
        (b"1,2,3", "3 columns where there must be 2"),
        (b"1;2", "1 columns where there must be 2"),
        (b"1,", "'' is not a finite number"),
        (b"1,nan", "'nan' is not a finite number"),
        (b"-inf,1", "'-inf' is not a finite number"),
        (b"1,1e39", "'1e39' is not a finite number"),
        (b"1_000,1", "'1_000' is not a finite number"),
        ("1,١".encode(), "'١' is not a finite number"),
        (b"1,\xff", "it is not UTF-8"),
        (b"1,2\0", "it holds a zero byte"),
        (b'1,"2', "unexpected end of data"),
        (b'1,"2"3', "',' expected after '\"'"),
        (b"1," + b"9" * rows.MAX_LINE, "the line is longer than 65536 bytes"),
    ],
)
def test_a_malformed_line_is_told_and_costs_no_other(line: bytes, said: str) -> None:
    content = b"5,6\n" + line + b"\n7,8\n"
    assert wrong(content) == {2: said}
    assert [row.numbers for row in read(content) if not row.wrong] == [(5, 6), (7, 8)]


def test_a_line_without_a_label_is_malformed() -> None:
    assert wrong(b"a,b,label\n1,2,\n", labelled=True) == {2: "it has no label"}


@given(st.lists(st.tuples(FLOATS, FLOATS, LABELS)))
@example([(math.ulp(0.0), -0.0, '"'), (1.0, 2.0, "a,b")])
def test_what_is_written_is_read(lines: list[tuple[float, float, str]]) -> None:
    quoted = ['{!r},{!r},"{}"'.format(x, y, label.replace('"', '""')) for x, y, label in lines]
    found = read("\n".join(["x,y,label", *quoted]).encode(), labelled=True)
    assert [(*row.numbers, row.label) for row in found] == [(x, y, label.strip()) for x, y, label in lines]


@given(st.binary(max_size=400), st.booleans(), st.integers(1, 3))
@example(b"\r", False, 1)
@example(b'"\n"\n', False, 1)
def test_whatever_bytes_there_are_every_line_is_a_row_or_told(content: bytes, labelled: bool, columns: int) -> None:
    try:
        found = read(content, columns, labelled)
    except HeaderError:
        assert labelled
        return
    lines = content.split(b"\n")
    assert [row.line for row in found] == sorted({row.line for row in found})
    for row in found:
        assert lines[row.line - 1].strip()
        assert bool(row.wrong) != (len(row.numbers) == columns and bool(np.isfinite(np.float32(row.numbers)).all()))
    blank = sum(not line.strip() for line in lines)
    assert len(found) >= len(lines) - blank - 1
