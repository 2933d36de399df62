"""``predict``: classes for what can be read, errors for what cannot."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from support.commandline import Cli, Ended, configured
from support.pictures import DIGITS, encoded, noise

DIGIT = DIGITS.with_name("3.png")


def test_the_document_of_a_prediction(predicted: Ended, released: Path) -> None:
    assert predicted.code == 0
    document = predicted.document
    assert list(document) == ["model", "predictions"]
    assert document["model"] == (released / "current").resolve().name
    right, wrong = document["predictions"]
    assert (right["image"], len(right["classes"])) == (str(DIGIT), 3)
    assert all(set(each) == {"label", "probability"} for each in right["classes"])
    shares = [each["probability"] for each in right["classes"]]
    assert shares == sorted(shares, reverse=True)
    assert set(wrong) == {"image", "error"}
    assert wrong["image"] == "/nowhere.png"


def test_all_classes_together_are_certain(cli: Cli, released: Path) -> None:
    classes = cli("predict", DIGIT, "--model", released, "--top", 99, "--json").document["predictions"][0]["classes"]
    assert sorted(each["label"] for each in classes) == [str(number) for number in range(10)]
    assert sum(each["probability"] for each in classes) == pytest.approx(1, abs=1e-3)


def test_predictions_are_told_to_people_a_line_each(
    cli: Cli, released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.png").write_bytes(encoded(noise(1)))
    (tmp_path / "torn.png").write_bytes(encoded(noise(1))[:-40])
    told = cli("predict", "good.png", "torn.png", "none.png", "--model", released, "--top", 2)
    assert told.code == 0
    good, torn, none = told.out.splitlines()
    assert good.startswith("good.png: ")
    assert good.count("%") == 2
    assert torn.startswith("torn.png: cannot be read: ")
    assert none.startswith("none.png: cannot be read: ")


def test_no_image_that_can_be_read_is_an_error(cli: Cli, released: Path, tmp_path: Path) -> None:
    ended = cli("predict", tmp_path / "a.png", tmp_path / "b.png", "--model", released, "--json")
    assert ended.code == 5
    document = ended.error("BAD_DATA")
    assert [entry["image"] for entry in document["predictions"]] == [f"{tmp_path}/a.png", f"{tmp_path}/b.png"]
    assert ended.complaint.startswith(f"no image could be read: {tmp_path}/a.png: ")


def test_the_agents_own_model_is_the_one_meant_by_default(cli: Cli, released: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    config = configured(tmp_path, agent={"state_dir": str(state)})
    nothing = cli("predict", DIGIT, "--config", config)
    assert (nothing.code, nothing.complaint.partition(" holds")[0]) == (2, f"{state}/models")
    shutil.copytree(released, state / "models", symlinks=True)
    assert cli("predict", DIGIT, "--config", config).code == 0


def test_a_model_that_was_touched_is_not_used(cli: Cli, released: Path, tmp_path: Path) -> None:
    models = shutil.copytree(released, tmp_path / "models", symlinks=True)
    with (models / "current/model.onnx").open("ab") as file:
        file.write(b"x")
    ended = cli("predict", DIGIT, "--model", models, "--json")
    assert ended.code == 8
    ended.error("VERIFY_FAILED")
    assert " that were deployed: 'reconvene-agent models rollback --models " in ended.complaint


def test_many_images_are_asked_for_in_parts_and_told_in_order(
    cli: Cli, stand_in: Callable[[str], Path], released: Path, tmp_path: Path
) -> None:
    config = stand_in(
        f"with open({str(tmp_path / 'parts')!r}, 'a') as parts:\n    parts.write(str(len(request.images)) + '\\n')\n"
        "return {'model': 'm', 'predictions': [{'image': image, 'classes': []} for image in request.images]}"
    )
    names = [f"/{number}.png" for number in range(5)]
    ended = cli("predict", *names, "--top", 300, "--model", released, "--config", config, "--json")
    assert (tmp_path / "parts").read_text().split() == ["2", "2", "1"]
    assert [entry["image"] for entry in ended.document["predictions"]] == names


def test_no_class_at_all_cannot_be_asked_for(cli: Cli, released: Path) -> None:
    ended = cli("predict", DIGIT, "--model", released, "--top", 0)
    assert (ended.code, ended.complaint) == (2, "--top must be at least 1")
