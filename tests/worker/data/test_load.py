from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.worker.data.dataset import Dataset
from reconvene_agent.worker.data.load import load
from support.pictures import DIGITS, class_folders, digits

SPEC = ModelSpec("vgg11", (1, 8, 8), 10)


def loaded(path: Path, spec: ModelSpec = SPEC) -> Dataset:
    return load(path, spec, (), 0.2, lambda *_: None)


def test_the_shipped_digits_load() -> None:
    data = loaded(DIGITS)
    x, y = digits()
    assert len(data.train) + len(data.validation) == len(x) == 1797
    assert len(data.validation) / 1797 == pytest.approx(0.2, abs=0.04)
    assert set(np.unique(y)) == set(range(10)) == set(data.validation.classes.tolist())


def test_a_folder_is_read_as_one(tmp_path: Path) -> None:
    class_folders(tmp_path / "data.npz", ("a", "b"), each=10)  # whatever it is called
    assert loaded(tmp_path / "data.npz", ModelSpec("vgg11", (3, 8, 8), 2)).labels == ("a", "b")


@pytest.mark.parametrize("name", ["none", "none.npz"])
def test_nothing_there_is_no_data(tmp_path: Path, name: str) -> None:
    with pytest.raises(AgentError, match="does not exist: name a folder of images or") as caught:
        loaded(tmp_path / name)
    assert caught.value.code is ErrorCode.NO_DATA


def test_a_file_of_another_kind_and_a_pipe_are_bad_data(tmp_path: Path) -> None:
    (tmp_path / "data.zip").touch()
    os.mkfifo(tmp_path / "pipe.npz")
    for name in ("data.zip", "pipe.npz"):
        with pytest.raises(AgentError, match="is not what vgg11 learns from: name a folder of images or") as caught:
            loaded(tmp_path / name)
        assert caught.value.code is ErrorCode.BAD_DATA
