"""Models folders with small releases in them, each whole: its manifest is that of its file."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import msgspec

from reconvene_agent.core.release import CURRENT, MANIFEST, ONNX, Release, version_for
from reconvene_agent.core.shelf import Shelf
from support.values import release as a_release


def prepared(models: Path, content: bytes, **facts: Any) -> tuple[Path, Release]:
    """Prepare a release folder beside its final place, with these ``facts`` in its manifest."""
    folder = models / ".new"
    folder.mkdir(parents=True)
    digest = hashlib.sha256(content).hexdigest()
    made = msgspec.structs.replace(a_release(version_for(models, digest)), onnx_sha256=digest, onnx_bytes=len(content), **facts)
    (folder / ONNX).write_bytes(content)
    (folder / MANIFEST).write_bytes(msgspec.json.encode(made))
    return folder, made


def publish(models: Path, number: int, **facts: Any) -> str:
    """Publish the release of this number; return its version."""
    aside, made = prepared(models, b"model %d" % number, **facts)
    Shelf(models).publish(aside, made.version)
    return made.version


def refuse(models: Path, number: int) -> str:
    """Keep a release that did not earn its place; return its version."""
    aside, made = prepared(models, b"model %d" % number, refused=("it is worse",))
    Shelf(models).keep(aside, made.version)
    return made.version


def serving(models: Path) -> str:
    return os.readlink(models / CURRENT)  # noqa: PTH115 - the text of the link itself


def tear(models: Path, version: str) -> None:
    """Leave half of a release's file."""
    onnx = models / version / ONNX
    onnx.write_bytes(onnx.read_bytes()[:4])
