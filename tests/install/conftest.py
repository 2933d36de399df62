from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.doubles import Double, why_not
from support.installing import CHECKOUT, SYSTEM_PYTHON, Board, installer


@pytest.fixture(scope="package")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of wheels for this machine's own Python, torch left out."""
    if not SYSTEM_PYTHON.exists():
        pytest.skip(f"there is no {SYSTEM_PYTHON} for a service to run with")
    told = subprocess.run(
        [SYSTEM_PYTHON, "-c", "import sys, os; print('%d.%d' % sys.version_info[:2], os.uname().machine)"],
        capture_output=True,
        text=True,
        check=True,
    )
    python, machine = told.stdout.split()
    folder = tmp_path_factory.mktemp("wheels") / "bundle"
    done = installer("bundle-wheels", "--arch", machine, "--python", python, "--without-torch", folder, seconds=110)
    assert done.code == 0, done
    return folder


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Double]:
    """Return a booted guest that sees the checkout and all that the tests make."""
    if reason := why_not():
        pytest.skip(f"NOT TESTED: installations under systemd, since {reason}")
    try:
        double = Double(CHECKOUT, tmp_path_factory.getbasetemp())
    except (AssertionError, OSError) as error:  # nothing of ours is in it yet
        pytest.skip(f"NOT TESTED: installations under systemd, since no double of this machine boots: {error}")
    with double as booted:
        # What lies in root's home and is borrowed by a test's interpreter is to be seen by the service's user as well.
        booted.run("chmod", "755", "/root", *(CHECKOUT.parents), tmp_path_factory.getbasetemp())
        yield booted


@pytest.fixture(scope="module")
def board(guest: Double) -> Board:
    return Board(guest)
