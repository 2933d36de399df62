"""Everything as a board's owner does it: a fresh Debian, a fresh checkout, the network, one command; then the board works."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconvene_agent.core.bundle import ModelSpec
from support import guests
from support.brokers import Mosquitto
from support.daemons import Fleet
from support.guests import CHECKOUT, READY_S, STATE, UNIT, Guest
from support.models import shipped
from support.runs import archive

pytestmark = [pytest.mark.systemd, pytest.mark.long, pytest.mark.timeout(1500)]

NOT_OURS = (".git", ".venv", "__pycache__", ".*_cache", ".hypothesis", "shared")
ARGS = {"bundle": "ours", "data": "digits.npz", "sparsity": 0.9, "training": {"epochs": 2, "batch": 32, "augment": "none"}}


def pip_settings(root: Path) -> tuple[list[str], set[Path]]:
    """Return how pip is told here where to look, as its environment for a guest, and the folders that it needs to see for that.

    Files that are named are copied: what the guest's own packages bring must not be hidden.
    """
    told = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True).stdout
    environment, folders = [], set()
    for name, value in re.findall(r"^(?:global|:env:)\.([a-z-]+)='(.*)'$", told, re.MULTILINE):
        words = value.replace("\\n", " ").split()
        for number, word in enumerate(words):
            path = Path(word.removeprefix("file://"))
            if path.is_absolute() and path.is_dir():
                folders.add(path.parent if path.name == "simple" else path)  # an index refers to files beside it
            elif path.is_absolute() and path.is_file():
                shutil.copy(path, root / "root" / path.name)
                words[number] = f"/root/{path.name}"
        environment.append(f"PIP_{name.upper().replace('-', '_')}={' '.join(words)}")
    return environment, folders


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    """Return a Debian that has a checkout and nothing of the agent, not booted yet."""
    if reason := guests.why_not():
        pytest.skip(f"NOT TESTED: an installation from the network, since {reason}")
    with Guest(tmp_path / "guest", guests.make_root()) as fresh:
        fresh.prepare()
        shutil.copy("/etc/resolv.conf", fresh.root / "etc/resolv.conf")
        shutil.copytree(CHECKOUT, fresh.root / "root/reconvene-agent", ignore=shutil.ignore_patterns(*NOT_OURS))
        yield fresh


def test_a_fresh_installation_from_the_network(guest: Guest, absent: Mosquitto, tmp_path: Path) -> None:
    """Whatever pip is told where to look, here, is told to the guest: it installs from where this machine does."""
    environment, folders = pip_settings(guest.root)
    guest.boot(*folders)
    absent.start()
    template = (CHECKOUT / "systemd/config.toml").read_text()
    (guest.root / "root/board.toml").write_text(template.replace("[agent]\n", '[agent]\ndevice_id = "board-1"\n'))
    command = ("/root/reconvene-agent/install.sh", "--config", "/root/board.toml", "--broker", absent.url)
    guest.run("env", *environment, *command, seconds=1200)
    assert guest.run("systemctl", "is-active", UNIT) == "active"
    assert guest.run("systemctl", "is-enabled", UNIT) == "enabled"
    assert guest.soonest_ready_s() < READY_S
    assert "error" not in guest.run("reconvene-agent", "doctor")
    bundle = guest.root / STATE.lstrip("/") / "bundles/ours"
    shipped(bundle, ModelSpec("resnet20", (1, 8, 8), 10))
    archive(bundle.parents[1] / "data/digits.npz", 600)
    with Fleet(absent.port) as fleet:
        fleet.wait_birth()
        fleet.order("specialize/1", ARGS)
        end = fleet.wait_end("specialize/1", 120)
        assert end["status"] == "successful", end
    assert guest.run("test", "-s", f"{STATE}/models/current/model.onnx") == ""
    assert "r0001-" in guest.run("reconvene-agent", "status")
