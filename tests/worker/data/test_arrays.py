from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.worker.data import archive as archive_file
from reconvene_agent.worker.data.cache import Cache
from reconvene_agent.worker.data.dataset import Dataset
from reconvene_agent.worker.data.load import load

GREY = ModelSpec("vgg11", (1, 4, 6), 3)
COLOUR = ModelSpec("vgg11", (3, 4, 6), 3)
COUNT = 60


def pixels(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


CLASSES = np.arange(COUNT) % 3


def loaded(folder: Path, spec: ModelSpec, **content: object) -> Dataset:
    path = folder / "data.npz"
    np.savez_compressed(path, **content)
    return load(path, spec, ("a", "b", "c"), 0.3, lambda *_: None)


def together(data: Dataset) -> dict[bytes, int]:
    """Return the class of every image, whichever side it is on."""
    both = [(part.inputs, part.classes) for part in (data.train, data.validation)]
    return {image.tobytes(): int(number) for images, classes in both for image, number in zip(images, classes, strict=True)}


@pytest.mark.parametrize(
    ("spec", "shape", "turn"),
    [
        (GREY, (4, 6), lambda x: x[:, np.newaxis]),
        (GREY, (1, 4, 6), lambda x: x),
        (GREY, (4, 6, 1), lambda x: x.transpose(0, 3, 1, 2)),
        (COLOUR, (3, 4, 6), lambda x: x),
        (COLOUR, (4, 6, 3), lambda x: x.transpose(0, 3, 1, 2)),
    ],
)
def test_every_layout_becomes_channels_first(
    tmp_path: Path, spec: ModelSpec, shape: tuple[int, ...], turn: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
) -> None:
    x = pixels(COUNT, *shape)
    data = loaded(tmp_path, spec, x=x, y=CLASSES)
    assert data.train.inputs.shape[1:] == spec.input
    assert together(data) == {image.tobytes(): number for image, number in zip(turn(x), CLASSES.tolist(), strict=True)}
    assert data.labels == ("a", "b", "c")
    assert 0 < len(data.validation) < len(data.train)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_numbers_between_0_and_1_become_levels(tmp_path: Path, kind: type) -> None:
    x = pixels(COUNT, 4, 6)
    data = loaded(tmp_path, GREY, x=(x / 255).astype(kind), y=CLASSES)
    assert together(data) == together(loaded(tmp_path, GREY, x=x, y=CLASSES))


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint64])
def test_classes_may_be_any_whole_numbers(tmp_path: Path, kind: type) -> None:
    data = loaded(tmp_path, GREY, x=pixels(COUNT, 4, 6), y=CLASSES.astype(kind))
    assert data.train.classes.dtype == np.int64


def test_a_held_out_part_that_is_given_is_taken_as_it_is(tmp_path: Path) -> None:
    x = pixels(COUNT, 4, 6)
    data = loaded(tmp_path, GREY, x=x[:50], y=CLASSES[:50], x_val=x[50:], y_val=CLASSES[50:])
    assert np.array_equal(data.train.inputs[:, 0], x[:50])
    assert np.array_equal(data.validation.inputs[:, 0], x[50:])
    assert np.array_equal(data.validation.classes, CLASSES[50:])


def test_the_split_does_not_depend_on_the_order(tmp_path: Path) -> None:
    x = pixels(COUNT, 4, 6)
    order = np.random.default_rng(1).permutation(COUNT)
    one = loaded(tmp_path, GREY, x=x, y=CLASSES)
    other = loaded(tmp_path, GREY, x=x[order], y=CLASSES[order])
    assert {image.tobytes() for image in one.validation.inputs} == {image.tobytes() for image in other.validation.inputs}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"x": pixels(COUNT, 4, 6)}, "must hold x and y"),
        ({"images": pixels(COUNT, 4, 6), "labels": CLASSES}, "it holds images, labels"),
        ({"x": pixels(COUNT, 4, 6), "y": CLASSES, "x_val": pixels(5, 4, 6)}, "both or neither"),
        ({"x": pixels(COUNT, 4, 6), "y": CLASSES[:-1]}, "one whole number for each image"),
        ({"x": pixels(COUNT, 4, 6), "y": CLASSES[:, np.newaxis]}, "one whole number for each image"),
        ({"x": pixels(COUNT, 4, 6), "y": CLASSES.astype(float)}, "one whole number for each image"),
        ({"x": np.uint8(3), "y": np.int64(1)}, "one whole number for each image of x"),
        (
            {"x": pixels(COUNT, 4, 6), "y": CLASSES, "x_val": pixels(5, 4, 6), "y_val": CLASSES[:4]},
            "one whole number for each image of x_val",
        ),
        ({"x": pixels(COUNT, 4, 6), "y": CLASSES + 1}, "between 0 and 2"),
        ({"x": pixels(COUNT, 4, 6), "y": CLASSES - 1}, "between 0 and 2"),
        ({"x": pixels(COUNT, 4, 6), "y": np.full(COUNT, 2**63 + 1, dtype=np.uint64)}, "between 0 and 2"),
        ({"x": pixels(COUNT, 6, 4), "y": CLASSES}, "6×4 do not fit the bundle's input of 1×4×6"),
        ({"x": pixels(COUNT, 4, 6, 3), "y": CLASSES}, "4×6×3 do not fit"),
        ({"x": pixels(COUNT, 4, 6).astype(np.int32), "y": CLASSES}, "pixels must be uint8"),
        ({"x": pixels(COUNT, 4, 6).astype(np.float32), "y": CLASSES}, "numbers between 0 and 1"),
        ({"x": np.full((COUNT, 4, 6), np.nan), "y": CLASSES}, "numbers between 0 and 1"),
        ({"x": np.full((COUNT, 4, 6), -0.01), "y": CLASSES}, "numbers between 0 and 1"),
        ({"x": np.array(["a", None], dtype=object), "y": CLASSES}, "Object arrays cannot be loaded"),
        ({"x": pixels(COUNT, 4, 6), "y": np.array([{}] * COUNT, dtype=object)}, "Object arrays cannot be loaded"),
    ],
)
def test_arrays_that_do_not_fit_are_bad_data(tmp_path: Path, content: dict[str, object], said: str) -> None:
    with pytest.raises(AgentError, match=said) as caught:
        loaded(tmp_path, GREY, **content)
    assert caught.value.code is ErrorCode.BAD_DATA
    assert str(tmp_path / "data.npz") in caught.value.message
    assert len(caught.value.message.splitlines()) == 1


WINDOWS = ModelSpec("convnet1d", (2, 8), 3)
ONE_CHANNEL = ModelSpec("convnet1d", (1, 8), 3)
SQUARE = ModelSpec("convnet1d", (8, 8), 3)
FEATURES = ModelSpec("mlp", (5,), 3)


def numbers(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize(
    ("spec", "shape", "turn"),
    [
        (WINDOWS, (2, 8), lambda x: x),
        (WINDOWS, (8, 2), lambda x: x.transpose(0, 2, 1)),
        (ONE_CHANNEL, (8,), lambda x: x[:, np.newaxis]),
        (ONE_CHANNEL, (8, 1), lambda x: x.transpose(0, 2, 1)),
        (SQUARE, (8, 8), lambda x: x),
        (FEATURES, (5,), lambda x: x),
    ],
)
def test_windows_become_channels_first_and_features_stay(
    tmp_path: Path, spec: ModelSpec, shape: tuple[int, ...], turn: Callable[[NDArray[np.float32]], NDArray[np.float32]]
) -> None:
    x = numbers(COUNT, *shape)
    data = loaded(tmp_path, spec, x=x, y=CLASSES)
    assert data.train.inputs.shape[1:] == spec.input
    assert data.train.inputs.dtype == data.validation.inputs.dtype == np.float32
    assert together(data) == {each.tobytes(): number for each, number in zip(turn(x), CLASSES.tolist(), strict=True)}
    assert 0 < len(data.validation) < len(data.train)
    assert len(data.mean) == len(data.std) == spec.input[0]


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int64, np.float16, np.float64])
def test_windows_may_be_numbers_of_any_size(tmp_path: Path, kind: type) -> None:
    x = np.random.default_rng(0).integers(0, 100, (COUNT, 2, 8)).astype(kind)
    data = loaded(tmp_path, WINDOWS, x=x, y=CLASSES)
    assert data.train.inputs.dtype == np.float32
    assert together(data).keys() == {each.tobytes() for each in x.astype(np.float32)}
    assert data.mean[0] == pytest.approx(50, abs=10)


def test_a_held_out_part_of_windows_is_taken_as_it_is(tmp_path: Path) -> None:
    x = numbers(COUNT, 8, 2)
    data = loaded(tmp_path, WINDOWS, x=x[:50], y=CLASSES[:50], x_val=x[50:], y_val=CLASSES[50:])
    assert np.array_equal(data.train.inputs, x[:50].transpose(0, 2, 1))
    assert np.array_equal(data.validation.inputs, x[50:].transpose(0, 2, 1))


def test_the_split_of_windows_does_not_depend_on_the_order_or_the_layout(tmp_path: Path) -> None:
    x = numbers(COUNT, 2, 8)
    one = loaded(tmp_path, WINDOWS, x=x, y=CLASSES)
    other = loaded(tmp_path, WINDOWS, x=x[::-1].transpose(0, 2, 1).astype(np.float64), y=CLASSES)
    assert {each.tobytes() for each in one.validation.inputs} == {each.tobytes() for each in other.validation.inputs}


def spoiled(value: float, *rows: int) -> NDArray[np.float64]:
    x = numbers(COUNT, 2, 8).astype(np.float64)
    for row in rows:
        x[row, 1, row % 3 : row % 3 + 2] = value
    return x


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"x": spoiled(np.nan, *range(31)), "y": CLASSES}, "31 of 60 rows hold values that are not finite, such as x row 0: "),
        ({"x": numbers(COUNT, 3, 8), "y": CLASSES}, "windows of 3×8 do not fit the bundle's input of 2×8"),
        ({"x": numbers(COUNT, 16), "y": CLASSES}, "windows of 16 do not fit"),
        ({"x": numbers(COUNT, 2, 8, 1), "y": CLASSES}, "windows of 2×8×1 do not fit"),
        ({"x": numbers(COUNT), "y": CLASSES}, "windows of a single number do not fit"),
        ({"x": numbers(COUNT, 2, 8) > 0, "y": CLASSES}, "must hold integers or floats, not bool"),
        ({"x": numbers(COUNT, 2, 8).astype(complex), "y": CLASSES}, "must hold integers or floats, not complex128"),
        ({"x": numbers(COUNT, 2, 8).astype(str), "y": CLASSES}, "must hold integers or floats, not <U"),
        ({"x": numbers(COUNT, 2, 8), "y": CLASSES[:-1]}, "one whole number for each window of x"),
    ],
)
def test_windows_that_do_not_fit_are_bad_data(tmp_path: Path, content: dict[str, object], said: str) -> None:
    with pytest.raises(AgentError, match=said) as caught:
        loaded(tmp_path, WINDOWS, **content)
    assert caught.value.code is ErrorCode.BAD_DATA
    assert str(tmp_path / "data.npz") in caught.value.message
    assert len(caught.value.message.splitlines()) == 1


@pytest.mark.parametrize(
    ("value", "rows"), [(np.nan, (1, 7, 9)), (-np.inf, (59,)), (1e39, (0, 1))], ids=["nan", "infinite", "beyond float32"]
)
def test_rows_that_are_not_finite_are_skipped_counted_and_named(tmp_path: Path, value: float, rows: tuple[int, ...]) -> None:
    x = spoiled(value, *rows)
    data = loaded(tmp_path, WINDOWS, x=x, y=CLASSES)
    good = np.delete(np.arange(COUNT), rows)
    assert together(data) == {x[row].astype(np.float32).tobytes(): int(CLASSES[row]) for row in good}
    assert data.skipped.counts == {"malformed": len(rows)}
    named = [f"x row {row}: it holds values that are not finite" for row in rows]
    assert data.skipped.named() == named


def test_rows_are_numbered_in_the_array_that_they_are_in(tmp_path: Path) -> None:
    data = loaded(tmp_path, WINDOWS, x=numbers(COUNT, 2, 8), y=CLASSES, x_val=spoiled(np.nan, 4), y_val=CLASSES)
    assert (len(data.train), len(data.validation)) == (COUNT, COUNT - 1)
    assert data.skipped.named() == ["x_val row 4: it holds values that are not finite"]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("layout", ["C", "F"])
def test_an_archive_larger_than_what_is_read_at_a_time_is_read_whole(
    tmp_path: Path, save: Callable[..., None], layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_file, "CHUNK_BYTES", 7 * 64)
    x = np.asarray(numbers(COUNT, 2, 8), order=layout)
    save(tmp_path / "data.npz", x=x, y=CLASSES)
    data = load(tmp_path / "data.npz", WINDOWS, (), 0.3, lambda *_: None)
    assert together(data) == {each.tobytes(): int(number) for each, number in zip(x, CLASSES, strict=True)}


def test_an_archive_that_unpacks_to_more_than_there_is_room_for_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    x = np.zeros((200_000, 4, 6), dtype=np.uint8)
    np.savez_compressed(tmp_path / "data.npz", x=x, y=np.arange(len(x)) % 3)
    assert (tmp_path / "data.npz").stat().st_size < x.nbytes
    cache = Cache(tmp_path / "work/data", most_mb=4.0)
    with pytest.raises(
        AgentError, match=r"need 4\.578 MiB on disk at least, and may take 4: raise specialize\.cache_mb"
    ) as caught:
        load(tmp_path / "data.npz", GREY, (), 0.3, lambda *_: None, cache)
    assert caught.value.code is ErrorCode.NO_DISK
    assert not (tmp_path / "work").exists()


def test_an_archive_without_windows_is_no_data(tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="0 training windows") as caught:
        loaded(tmp_path, WINDOWS, x=np.empty((0, 2, 8)), y=np.empty(0, int))
    assert caught.value.code is ErrorCode.NO_DATA


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_an_archive_without_images_is_no_data(tmp_path: Path, kind: type) -> None:
    with pytest.raises(AgentError, match="0 training images") as caught:
        loaded(tmp_path, GREY, x=np.empty((0, 4, 6), kind), y=np.empty(0, int))
    assert caught.value.code is ErrorCode.NO_DATA


def test_a_single_array_and_a_pickle_under_the_name_are_bad_data(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    for content, pickled in ((pixels(3, 4, 6), False), (np.array([{}], dtype=object), True)):
        with path.open("wb") as file:
            np.save(file, content, allow_pickle=pickled)
        with pytest.raises(AgentError) as caught:
            load(path, GREY, (), 0.3, lambda *_: None)
        assert caught.value.code is ErrorCode.BAD_DATA


@settings(max_examples=150)
@given(data=st.data())
def test_a_damaged_archive_is_bad_data_or_still_holds_what_it_did(data: st.DataObject, archive: bytes, scratch: Path) -> None:
    content = bytearray(archive)
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    scratch.write_bytes(content[: data.draw(st.integers(0, len(content)) | st.just(len(content)))])
    assert outcome(scratch) in (COUNT, ErrorCode.BAD_DATA)


def outcome(path: Path) -> int | ErrorCode:
    """Return how many images an archive holds, or why it holds none."""
    try:
        data = load(path, GREY, (), 0.3, lambda *_: None)
    except AgentError as error:
        return error.code
    return len(data.train) + len(data.validation)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("archive") / "data.npz"
    np.savez_compressed(path, x=pixels(COUNT, 4, 6), y=CLASSES)
    return path.read_bytes()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch") / "data.npz"
