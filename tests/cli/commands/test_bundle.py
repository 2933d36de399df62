"""``bundle``: made whole or not at all, and checked file by file."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import safe_open

from reconvene_agent.core import bundle as bundles
from support.commandline import Cli, Ended, command
from support.disks import fill, tiny_disk

KEYS = ["path", "digest", "format", "model", "seed", "labels", "files"]
SHAPE = ("--model", "resnet20", "--input", "1x8x8", "--classes", 10, "--seed", 7)


# --- create ------------------------------------------------------------------------------------------------------------------


def test_the_document_of_a_bundle(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "b"
    ended = cli("bundle", "create", out, *SHAPE, "--json")
    assert (ended.code, ended.err) == (0, "")
    document = ended.document
    assert list(document) == KEYS
    assert document["path"] == str(out)
    assert document["digest"] == hashlib.sha256((out / "bundle.toml").read_bytes()).hexdigest()
    assert document["model"] == {"architecture": "resnet20", "input": [1, 8, 8], "classes": 10}
    assert (document["seed"], document["labels"], document["files"]) == (7, [], {})
    assert [path.name for path in out.parent.iterdir()] == ["b"]


def test_a_bundle_is_told_to_people_in_a_line(cli: Cli, tmp_path: Path) -> None:
    told = cli("bundle", "create", tmp_path / "b", *SHAPE)
    assert told == Ended(0, f"{tmp_path}/b: resnet20, input 1×8×8, 10 classes, seed 7\n", "")
    assert cli("bundle", "verify", tmp_path / "b") == told


def test_weights_can_be_shipped(weighty: Ended) -> None:
    assert weighty.code == 0
    document = weighty.document
    out = Path(document["path"])
    assert document["files"] == {"weights.safetensors": hashlib.sha256((out / "weights.safetensors").read_bytes()).hexdigest()}
    assert [path.name for path in out.parent.iterdir()] == ["weighty"]
    assert bundles.verify(out).ships_weights


def test_labels_come_from_a_file(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "labels").write_text("\ufeffcat\n\n  dog \nowl\n", encoding="utf-8")
    shape = ("--model", "vgg11", "--input", "3×32×32", "--classes", 3, "--seed", 0)
    document = cli("bundle", "create", tmp_path / "b", *shape, "--labels", tmp_path / "labels", "--json").document
    assert document["labels"] == ["cat", "dog", "owl"]
    assert document["model"]["input"] == [3, 32, 32]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            ("--input", "1x2x3x4"),
            "--input must look like 3x32x32 (channels, height, width), 6x128 (channels, length) or 24 (features), not '1x2x3x4'",
        ),
        (("--input", ""), "--input must look like"),
        (("--input", "1x8x-8"), "--input must look like"),
        (("--input", "1x8x0"), "these arguments make no bundle: Expected `int` >= 1"),
        (("--classes", 1), "these arguments make no bundle: Expected `int` >= 2"),
        (("--classes", "ten"), "argument --classes: invalid int value: 'ten'"),
        (("--seed", -1), "these arguments make no bundle: Expected `int` >= 0"),
        (("--input", "1x8x99999"), "these arguments make no bundle: Expected `int` <= 65536"),
        (("--model", "lenet"), "--model 'lenet' is neither built in nor installed here; there are: vgg11, vgg16, "),
        (("--labels", "/nowhere"), "the labels in /nowhere cannot be read: "),
    ],
    ids=str,
)
def test_arguments_that_make_no_bundle(change: tuple[object, ...], complaint: str, cli: Cli, tmp_path: Path) -> None:
    ended = cli("bundle", "create", tmp_path / "b", *SHAPE, *change)
    assert (ended.code, ended.out) == (2, "")
    assert ended.complaint.startswith(complaint)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("model", "size", "expected"),
    [
        ("mlp", "24", [24]),
        ("convnet1d", "6×128", [6, 128]),
        ("convnet1d", "1x65536", [1, 65536]),
        ("resnet50", "3X64X48", [3, 64, 48]),
    ],
)
def test_inputs_of_every_kind(model: str, size: str, expected: list[int], cli: Cli, tmp_path: Path) -> None:
    document = cli("bundle", "create", tmp_path / "b", *SHAPE, "--model", model, "--input", size, "--json").document
    assert document["model"] == {"architecture": model, "input": expected, "classes": 10}


@pytest.mark.parametrize("weights", [(), ("--weights",)])
@pytest.mark.parametrize(
    ("model", "size", "takes"),
    [("resnet20", "24", "(channels, height, width)"), ("mlp", "3x8x8", "(features,)"), ("convnet1d", "24", "(channels, length)")],
)
def test_an_input_of_another_kind(weights: tuple[str, ...], model: str, size: str, takes: str, cli: Cli, tmp_path: Path) -> None:
    ended = cli("bundle", "create", tmp_path / "b", *SHAPE, "--model", model, "--input", size, *weights, "--json")
    assert ended.code == 4
    ended.error("BAD_BUNDLE")
    assert ended.complaint.startswith(f"{model} takes {takes}, ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("labels", "code", "complaint"),
    [("a\nb\n", 2, " names 2 classes, but --classes is 10"), ("same\n" * 10, 4, "labels must all be different")],
)
def test_labels_that_fit_no_bundle(labels: str, code: int, complaint: str, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "labels").write_text(labels)
    ended = cli("bundle", "create", tmp_path / "b", *SHAPE, "--labels", tmp_path / "labels")
    assert ended.code == code
    assert complaint in ended.complaint
    assert [path.name for path in tmp_path.iterdir()] == ["labels"]


def test_what_is_already_there_stays(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b/mine").touch()
    ended = cli("bundle", "create", tmp_path / "b", *SHAPE)
    assert (ended.code, ended.complaint) == (2, f"{tmp_path}/b is already there: name another folder, or remove it first")
    assert (tmp_path / "b/mine").exists()


@pytest.mark.parametrize("with_weights", [False, True])
def test_a_full_disk_leaves_no_part_of_a_bundle(with_weights: bool, tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", "64k") as disk:
        if not with_weights:
            fill(disk)
        before = sorted(disk.iterdir())
        ended = command("bundle", "create", disk / "b", *SHAPE, *(["--weights"] if with_weights else []), "--json")
        assert sorted(disk.iterdir()) == before
    assert ended.code == 7
    ended.error("NO_DISK")


# --- models of others -------------------------------------------------------------------------------------------------------

THEIRS = """
from torch import nn

def build(spec):
    return nn.Sequential(nn.Linear(*spec.input, 7), nn.ReLU(), nn.Linear(7, spec.classes))
"""


def installed(folder: Path, body: str = THEIRS) -> dict[str, str]:
    """Install a package as pip leaves it; return the environment in which it is found."""
    info = folder / "their_models-1.2.dist-info"
    info.mkdir(parents=True)
    (folder / "their_models.py").write_text(body)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-models\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[reconvene_agent.models]\nmy_net = their_models:build\n")
    inherited = [path] if (path := os.environ.get("PYTHONPATH")) else []
    return {"PYTHONPATH": os.pathsep.join([str(folder), *inherited])}


def test_a_worker_builds_an_installed_model(tmp_path: Path) -> None:
    environment = installed(tmp_path / "site")
    shape = ("--model", "my_net", "--input", "5", "--classes", 3, "--seed", 7)
    ended = command("bundle", "create", tmp_path / "b", *shape, "--weights", "--json", **environment)
    assert (ended.code, ended.err) == (0, "")
    assert ended.document["model"] == {"architecture": "my_net", "input": [5], "classes": 3}
    with safe_open(tmp_path / "b/weights.safetensors", framework="np") as file:
        assert {name: file.get_tensor(name).shape for name in file.keys()} == {  # noqa: SIM118 - not a mapping
            "0.weight": (7, 5),
            "0.bias": (7,),
            "2.weight": (3, 7),
            "2.bias": (3,),
        }


def test_an_installed_model_is_not_imported_for_its_name(tmp_path: Path) -> None:
    environment = installed(tmp_path / "site", "raise SystemExit('imported')")
    shape = ("--model", "my_net", "--input", "5", "--classes", 3, "--seed", 7)
    assert command("bundle", "create", tmp_path / "b", *shape, **environment).code == 0
    ended = command("bundle", "create", tmp_path / "c", *shape, "--model", "my_nest", **environment)
    assert ended.code == 2
    assert ended.complaint.endswith(", mlp, my_net")


def test_an_installed_model_that_does_not_work_is_named(tmp_path: Path) -> None:
    environment = installed(tmp_path / "site", "import not_there")
    shape = ("--model", "my_net", "--input", "5", "--classes", 3, "--seed", 7)
    ended = command("bundle", "create", tmp_path / "b", *shape, "--weights", "--json", **environment)
    assert ended.code == 4
    ended.error("BAD_BUNDLE")
    theirs = "the installed model 'my_net' (their_models:build of their-models 1.2) cannot be imported: "
    assert ended.complaint == theirs + "ModuleNotFoundError: No module named 'not_there'"


# --- verify ------------------------------------------------------------------------------------------------------------------


def test_a_bundle_that_is_whole(cli: Cli, weighty: Ended) -> None:
    path = weighty.document["path"]
    ended = cli("bundle", "verify", path, "--json")
    assert (ended.code, ended.document) == (0, weighty.document)
    assert cli("bundle", "verify", path).out.endswith(", 10 classes, initial weights\n")


def altered(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("harm", [altered, cut, Path.unlink])
def test_a_bundle_with_harmed_weights(harm: Callable[[Path], None], cli: Cli, weighty: Ended, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(weighty.document["path"], tmp_path / "b"))
    harm(folder / "weights.safetensors")
    ended = cli("bundle", "verify", folder, "--json")
    assert ended.code == 4
    ended.error("BAD_BUNDLE")
    assert str(folder / "weights.safetensors") in ended.complaint


@pytest.mark.parametrize("content", [None, "", "format = 1\n[model", "format = 2\nseed = 0\n"])
def test_a_bundle_with_a_harmed_manifest(content: str | None, cli: Cli, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "bundle.toml").write_text(content)
    ended = cli("bundle", "verify", tmp_path, "--json")
    assert ended.code == 4
    ended.error("BAD_BUNDLE")
