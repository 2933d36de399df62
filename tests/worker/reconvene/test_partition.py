from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconvene_agent.worker.reconvene.partition import Dim, MisfitError, Partition


def spread(units: Partition, dim: Dim) -> list[tuple[int, int]]:
    """Return the thing, as its unit and its place in it, that every entry of a dimension belongs to."""
    return [(unit, thing) for unit, times in units.resolve(dim) for thing in range(units.width(unit)) for _ in range(times)]


def test_aligned_dimensions_become_one_unit() -> None:
    units = Partition()
    one, other, apart = units.new(8), units.new(8), units.new(8)
    units.align(one, other)
    assert units.resolve(one) == units.resolve(other) != units.resolve(apart)


def test_a_unit_is_divided_into_blocks_of_one_with_fewer_things() -> None:
    units = Partition()
    channels, blocks = units.new(8), units.new(2)
    units.align(channels, ((blocks[0][0], 4),))
    assert units.resolve(channels) == ((blocks[0][0], 4),)
    assert units.width(units.resolve(channels)[0][0]) == 2


def test_blocks_of_unlike_sizes_are_divided_by_the_smaller_number_of_them() -> None:
    units = Partition()
    channels, fours, twos = units.new(8), units.new(4), units.new(2)
    units.align(channels, ((fours[0][0], 2),))
    units.align(channels, ((twos[0][0], 4),))
    assert units.resolve(channels) == ((twos[0][0], 4),)
    assert units.resolve(fours) == ((twos[0][0], 2),)


def test_a_unit_that_meets_a_row_of_two_is_cut_in_two() -> None:
    units = Partition()
    whole, head, rest = units.new(8), units.new(3), units.new(5)
    units.align(whole, head + rest)
    assert units.resolve(whole) == units.resolve(head + rest)
    assert [units.width(unit) for unit, _ in units.resolve(whole)] == [3, 5]


def test_what_holds_one_unit_holds_all_that_are_merged_with_it_divided_by_it_or_cut_from_it() -> None:
    units = Partition()
    merged, divided, cut = units.new(4), units.new(8), units.new(8)
    held = units.new(4, "held")
    units.align(merged, held)
    units.align(divided, ((held[0][0], 2),))
    units.hold(cut, "first")
    units.hold(cut, "second")
    units.align(cut, units.new(2) + units.new(6))
    assert units.frozen(merged) == units.frozen(divided) == "held"
    assert [units.frozen((segment,)) for segment in units.resolve(cut)] == ["first", "first"]


def test_a_row_is_fixed_when_all_of_it_is_held_and_frozen_when_any_is() -> None:
    units = Partition()
    held, free = units.new(4, "held"), units.new(4)
    assert (units.fixed(held), units.fixed(held + free), units.fixed(free)) == (True, False, False)
    assert (units.frozen(held + free), units.frozen(free)) == ("held", "")


@pytest.mark.parametrize(("one", "other"), [((4, 1), (5, 1)), ((4, 3), (3, 4)), ((4, 3), (6, 2))], ids=["sizes", "3:4", "2:3"])
def test_dimensions_that_cannot_be_divided_alike_are_refused(one: tuple[int, int], other: tuple[int, int]) -> None:
    units = Partition()
    sides = [tuple((unit, times) for unit, _ in units.new(width)) for width, times in (one, other)]
    with pytest.raises(MisfitError):
        units.align(*sides)


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[int], list[tuple[list[int], list[int]]]]:
    """Return the widths of some units, and pairs of rows of them, of one size, that are to be aligned one after another."""
    widths = draw(st.lists(st.integers(1, 6), min_size=2, max_size=5))
    row = st.lists(st.integers(0, len(widths) - 1), min_size=1, max_size=3)
    pairs = draw(st.lists(st.tuples(row, row), max_size=4))
    return widths, [pair for pair in pairs if sum(widths[i] for i in pair[0]) == sum(widths[i] for i in pair[1])]


@given(cases())
def test_entries_are_coupled_exactly_when_a_chain_of_alignments_leads_from_one_to_the_other(
    case: tuple[list[int], list[tuple[list[int], list[int]]]],
) -> None:
    widths, pairs = case
    units = Partition()
    singles = [units.new(width) for width in widths]
    coupled = {(unit, thing): {(unit, thing)} for unit, width in enumerate(widths) for thing in range(width)}
    for rows in pairs:
        units.align(*(tuple(segment for unit in row for segment in singles[unit]) for row in rows))
        for one, other in zip(*([(unit, i) for unit in row for i in range(widths[unit])] for row in rows), strict=True):
            merged = coupled[one] | coupled[other]
            coupled.update(dict.fromkeys(merged, merged))
    found = {(unit, i): thing for unit, dim in enumerate(singles) for i, thing in enumerate(spread(units, dim))}
    for entry, mates in coupled.items():
        assert {mate for mate in found if found[mate] == found[entry]} == mates


@given(st.data())
def test_dimensions_keep_their_size_whatever_is_aligned_and_agree_where_it_succeeds(data: st.DataObject) -> None:
    units = Partition()
    dims = [units.new(data.draw(st.integers(1, 12))) for _ in range(6)]
    dims += [tuple((unit, data.draw(st.sampled_from([2, 3, 4]))) for unit, _ in dim) for dim in dims]
    rows = [data.draw(st.sampled_from(dims)) + data.draw(st.sampled_from(dims)) for _ in range(4)] + dims
    sizes = [units.size(row) for row in rows]
    for _ in range(6):
        one, other = data.draw(st.sampled_from(rows)), data.draw(st.sampled_from(rows))
        try:
            units.align(one, other)
        except MisfitError:
            continue
        assert units.resolve(one) == units.resolve(other)
    assert [units.size(row) for row in rows] == [units.size(units.resolve(row)) for row in rows] == sizes
