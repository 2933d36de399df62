from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reconvene_agent.worker.reconvene.partition import Dim, Partition
from reconvene_agent.worker.reconvene.reshaping import FREE, MIXED, SIZE, Shape, Target, fold


@st.composite
def shapes(draw: st.DrawFn) -> tuple[Shape, Shape]:
    """Return two shapes of as many entries: the same factors, multiplied up differently."""
    factors = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))

    def cut() -> Shape:
        ends = sorted(draw(st.sets(st.integers(1, len(factors) - 1)))) if len(factors) > 1 else []
        return tuple(math.prod(factors[a:b]) for a, b in zip([0, *ends], [*ends, len(factors)], strict=True))

    return cut(), cut()


@settings(max_examples=400)
@given(shapes(), st.data())
def test_dropping_things_and_then_reshaping_is_the_same_as_reshaping_and_then_dropping_them(
    both: tuple[Shape, Shape], data: st.DataObject
) -> None:
    before, after = both
    units = Partition()
    dims = [units.new(size, "held" if data.draw(st.booleans()) else "") for size in before]
    if data.draw(st.booleans()) and before[0] > 1:
        dims[0] = units.new(1, "held") + units.new(before[0] - 1)
    said: list[Target] = [data.draw(st.sampled_from([None, *(dims[i] for i in same(before, size))])) for size in after]
    if data.draw(st.booleans()):
        said[data.draw(st.integers(0, len(after) - 1))] = FREE
    result = fold(units, dims, before, after, said)
    assert tuple(units.size(dim) for dim in result) == after
    kept = {
        unit: width if units.frozen(((unit, 1),)) else data.draw(st.integers(1, width))
        for dim in (*dims, *result)
        for unit, _ in units.resolve(dim)
        for width in [units.width(unit)]
    }
    entries = torch.arange(math.prod(before))
    narrow = [-1 if target == FREE else size_now(units, target, size, kept) for target, size in zip(said, after, strict=True)]
    dropped_first = picked(units, entries.reshape(before), dims, kept).reshape(narrow)
    assert torch.equal(dropped_first, picked(units, entries.reshape(after), result, kept))


def same(shape: Shape, size: int) -> list[int]:
    return [index for index, found in enumerate(shape) if found == size]


def size_now(units: Partition, target: Target, size: int, kept: dict[int, int]) -> int:
    return size if target is None else sum(kept[unit] * times for unit, times in units.resolve(target))


def picked(units: Partition, tensor: torch.Tensor, dims: list[Dim] | tuple[Dim, ...], kept: dict[int, int]) -> torch.Tensor:
    """Return what is left of a tensor when every unit keeps its first things."""
    for axis, dim in enumerate(dims):
        places = [
            thing < kept[unit] for unit, times in units.resolve(dim) for thing in range(units.width(unit)) for _ in range(times)
        ]
        tensor = tensor[(slice(None),) * axis + (torch.tensor(places),)]
    return tensor


def image(units: Partition) -> list[Dim]:
    """Return the dimensions of one image of 8 channels with 3×3 places."""
    return [units.new(1, "input"), units.new(8), units.new(3, "place"), units.new(3, "place")]


def test_flattened_channels_have_all_their_places_as_entries() -> None:
    units = Partition()
    dims = image(units)
    (_, flat) = fold(units, dims, (1, 8, 3, 3), (1, 72), [dims[0], FREE])
    assert units.resolve(flat) == ((dims[1][0][0], 9),)
    assert not units.frozen(flat)


def test_channels_behind_places_come_once_for_every_place() -> None:
    units = Partition()
    batch, channels, height, width = image(units)
    (_, flat) = fold(units, [batch, height, width, channels], (1, 3, 3, 8), (1, 72), [batch, FREE])
    assert units.resolve(flat) == channels * 9


def test_channels_are_taken_apart_where_a_size_is_left_open() -> None:
    units = Partition()
    channels = units.new(8)
    (things, entries) = fold(units, [channels], (8,), (4, 2), [FREE, None])
    assert units.resolve(channels) == tuple((unit, 2) for unit, _ in things)
    assert units.frozen(entries)
    assert not units.frozen(things)


def test_the_open_size_may_be_the_faster_one() -> None:
    units = Partition()
    channels = units.new(8)
    (_, things) = fold(units, [channels], (8,), (2, 4), [None, FREE])
    assert units.resolve(channels) == things * 2


@pytest.mark.parametrize("said", [[None, None], [None]], ids=["divided", "the same"])
def test_a_size_that_is_a_number_holds_the_channels(said: list[Target]) -> None:
    units = Partition()
    channels = units.new(8)
    fold(units, [channels], (8,), (4, 2) if len(said) == 2 else (8,), said)
    assert units.frozen(channels) == SIZE


def test_a_size_that_is_read_off_another_tensor_holds_both() -> None:
    units = Partition()
    channels, other = units.new(8), units.new(8)
    fold(units, [channels], (8,), (8,), [other])
    assert units.frozen(channels) == units.frozen(other) == SIZE
    aligned = units.new(6)
    fold(units, [aligned], (6,), (6,), [aligned])
    assert not units.frozen(aligned)


def test_of_two_free_dimensions_that_are_folded_the_second_is_held() -> None:
    units = Partition()
    one, other = units.new(4), units.new(6)
    (flat,) = fold(units, [one, other], (4, 6), (24,), [FREE])
    assert units.resolve(flat) == ((one[0][0], 6),)
    assert (units.frozen(one), units.frozen(other)) == ("", MIXED)


def test_dimensions_that_are_divided_across_one_another_are_held() -> None:
    units = Partition()
    one, other = units.new(4), units.new(6)
    fold(units, [one, other], (4, 6), (6, 4), [FREE, None])
    assert units.frozen(one) == units.frozen(other) == MIXED


def test_a_row_of_held_and_free_channels_stays_one_when_it_is_flattened() -> None:
    units = Partition()
    row = units.new(3, "input") + units.new(5)
    (flat,) = fold(units, [row, units.new(4, "place")], (8, 4), (32,), [FREE])
    assert units.resolve(flat) == tuple((unit, 4) for unit, _ in row)


def test_dimensions_of_one_entry_come_and_go() -> None:
    units = Partition()
    batch, channels = units.new(1, "input"), units.new(8)
    spread = fold(units, [batch, channels], (1, 8), (1, 8, 1, 1), [batch, FREE, None, None])
    assert units.resolve(spread[1]) == channels
    back = fold(units, spread, (1, 8, 1, 1), (1, 8), [batch, FREE])
    assert units.resolve(back[1]) == channels
    assert not units.frozen(channels)
