from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.worker.data.dataset import Dataset
from reconvene_agent.worker.data.load import load
from reconvene_agent.worker.data.windows import BLOCK

FEATURES = ModelSpec("mlp", (3,), 2)
WINDOWS = ModelSpec("convnet1d", (3, 8), 2)
NAMES = ("run", "walk")


def read(path: Path, spec: ModelSpec, labels: tuple[str, ...] = (), overlap: float = 0.5) -> Dataset:
    return load(path, spec, labels, 0.3, lambda *_: None, overlap=overlap)


def numbers(count: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, 3), dtype=np.float32)


def lines(values: NDArray[np.float32], *after: str) -> str:
    return "".join(",".join([*map(repr, row), *after]) + "\n" for row in values.tolist())


def labelled(path: Path, count: int = 40, names: tuple[str, ...] = NAMES, seed: int = 0) -> Path:
    path.write_text("x,y,z,label\n" + "".join(lines(numbers(count, seed + place), name) for place, name in enumerate(names)))
    return path


def recordings(root: Path, each: int = 4, length: int = 40) -> Path:
    for place, name in enumerate(NAMES):
        (root / name).mkdir(parents=True)
        for index in range(each):
            (root / name / f"{index}.csv").write_text("x,y,z\n" + lines(numbers(length, 100 * place + index)))
    return root


def together(data: Dataset) -> dict[bytes, int]:
    parts = [(part.inputs, part.classes) for part in (data.train, data.validation)]
    return {each.tobytes(): int(number) for inputs, classes in parts for each, number in zip(inputs, classes, strict=True)}


def test_every_line_of_a_labelled_file_is_a_row_of_features(tmp_path: Path) -> None:
    data = read(labelled(tmp_path / "data.csv"), FEATURES)
    assert together(data) == {row.tobytes(): place for place in (0, 1) for row in numbers(40, place)}
    assert (data.labels, data.skipped.count) == (NAMES, 0)
    assert 0 < len(data.validation) < len(data.train)


def test_labels_of_the_bundle_decide_and_other_names_are_skipped(tmp_path: Path) -> None:
    path = labelled(tmp_path / "data.csv", names=("walk", "sit", "run"))
    data = read(path, FEATURES, labels=NAMES)
    assert together(data) == {row.tobytes(): 1 - place // 2 for place in (0, 2) for row in numbers(40, place)}
    assert data.skipped.counts == {"unknown_class": 40}
    assert data.skipped.named()[0] == "data.csv line 42: class 'sit' is not among the bundle's labels"


def test_names_that_are_numbers_are_ordered_as_such(tmp_path: Path) -> None:
    path = labelled(tmp_path / "data.csv", names=("10", "9"))
    assert read(path, FEATURES).labels == ("9", "10")


def test_two_labelled_files_are_the_two_parts(tmp_path: Path) -> None:
    labelled(tmp_path / "train.csv", 20)
    labelled(tmp_path / "val.csv", 10, seed=50)
    data = read(tmp_path, FEATURES)
    assert (len(data.train), len(data.validation)) == (40, 20)
    assert data.validation.inputs.tobytes() == np.concatenate([numbers(10, 50), numbers(10, 51)]).tobytes()


def test_files_in_class_folders_are_rows_of_features_too(tmp_path: Path) -> None:
    data = read(recordings(tmp_path / "data"), FEATURES)
    assert together(data) == {row.tobytes(): place for place in (0, 1) for i in range(4) for row in numbers(40, 100 * place + i)}


@pytest.mark.parametrize(("overlap", "each"), [(0.0, 5), (0.5, 9), (0.75, 17)])
def test_files_in_class_folders_are_recordings_that_are_cut(tmp_path: Path, overlap: float, each: int) -> None:
    data = read(recordings(tmp_path / "data"), WINDOWS, overlap=overlap)
    assert len(data.train) + len(data.validation) == 8 * each
    assert data.train.inputs.shape[1:] == (3, 8)
    first = numbers(40, 101)[:8].T
    assert together(data)[first.tobytes()] == 1


def test_given_parts_of_recordings_are_kept_apart(tmp_path: Path) -> None:
    recordings(tmp_path / "data/train")
    recordings(tmp_path / "data/val", each=1, length=24)
    data = read(tmp_path / "data", WINDOWS, overlap=0.0)
    assert (len(data.train), len(data.validation)) == (2 * 4 * 5, 2 * 3)
    assert data.skipped.counts == {}


def test_a_recording_ends_where_the_class_changes_and_where_a_line_is_malformed(tmp_path: Path) -> None:
    length = 8
    content = "x,y,z,label\n"
    content += lines(numbers(length, 1), "run") + lines(numbers(length, 2), "walk")
    content += lines(numbers(length - 1, 3), "run") + "1,2,oops,run\n" + lines(numbers(length, 4), "run")
    content += "".join(lines(numbers(BLOCK * length, seed), name) for seed in range(10, 30) for name in NAMES)
    (tmp_path / "data.csv").write_text(content)
    data = read(tmp_path / "data.csv", WINDOWS)
    found = together(data)
    assert {numbers(length, seed).T.tobytes(): place for seed, place in ((1, 0), (2, 1), (4, 0))}.items() <= found.items()
    assert len(data.train) + len(data.validation) == 3 + 40 * 15
    assert data.skipped.counts == {"malformed": 1, "too_short": 1}
    assert set(data.skipped.named()) == {
        "data.csv line 25: 'oops' is not a finite number",
        "the recording from data.csv line 18: 7 readings where a window takes 8",
    }


def test_copies_and_contradictions_of_files_are_skipped(tmp_path: Path) -> None:
    root = recordings(tmp_path / "data")
    shutil.copy(root / "run/0.csv", root / "run/copy.csv")
    shutil.copy(root / "run/1.csv", root / "walk/lie.csv")
    data = read(root, WINDOWS, overlap=0.0)
    assert data.skipped.counts == {"duplicate": 1, "contradiction": 2}
    assert len(data.train) + len(data.validation) == 7 * 5


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [
        ("a,b,label\n1,2,run\n", ErrorCode.BAD_DATA, "data.csv: it has 2 columns beside 'label' where the model takes 3"),
        ("1,2,3\n", ErrorCode.BAD_DATA, "must name the columns, one of them 'label'"),
        ("", ErrorCode.BAD_DATA, "must name the columns"),
        ("x,y,z,label\n", ErrorCode.NO_DATA, "the data hold 0 training"),
        ("x,y,z,label\n" + "1,2,run\n" * 11 + "1,2,3,run\n1,2,3,walk\n" * 5, ErrorCode.BAD_DATA, "11 of 21 lines in .* line 2: "),
        ("x,y,z,label\n1,2,3,run\n", ErrorCode.BAD_DATA, r"the data's classes are 1 \(run\), the bundle's 2"),
    ],
)
@pytest.mark.parametrize("spec", [FEATURES, WINDOWS])
def test_a_file_that_does_not_fit_says_so_in_a_line(
    tmp_path: Path, spec: ModelSpec, content: str, code: ErrorCode, said: str
) -> None:
    (tmp_path / "data.csv").write_text(content)
    with pytest.raises(AgentError, match=said) as caught:
        read(tmp_path / "data.csv", spec)
    assert caught.value.code is code
    assert len(caught.value.message.splitlines()) == 1


def test_a_folder_without_csv_files_says_how_to_bring_them(tmp_path: Path) -> None:
    with pytest.raises(
        AgentError, match=rf"of them: put them as {tmp_path}/<class>/<name>\.csv, or bring one file with a column 'label'"
    ):
        read(tmp_path, WINDOWS)


def test_a_model_of_images_takes_no_csv(tmp_path: Path) -> None:
    with pytest.raises(AgentError, match=r"is not what vgg11 learns from: name a folder of images"):
        read(labelled(tmp_path / "data.csv"), ModelSpec("vgg11", (1, 8, 8), 2))
