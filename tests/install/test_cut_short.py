"""An installer that is killed, or whose board loses its power, at every moment: what works goes on working, and is never lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.installing import WORKER, Board, altered, broken

pytestmark = [pytest.mark.long, pytest.mark.timeout(3000)]

MINE = "/var/lib/reconvene-agent/data/mine"
CONFIG = "/etc/reconvene-agent/config.toml"
# The moment before the version that was switched to is started, and the moment after that.
MOMENTS = ("systemctl start --no-block reconvene-agent", "systemctl show --property=MainPID *")
FIRST = ("cp -R *", "ln -sfn versions/*", "mv -T */current", "ln -sfn */bin/reconvene-agent *", "systemctl enable *", MOMENTS[0])


@pytest.fixture(scope="module")
def installed(board: Board, wheels: Path) -> Board:
    """Return the board with 0.1.0 installed, and state that nobody may lose."""
    done = board.install(wheels, "--worker-python", WORKER, "--broker", "mqtt://127.0.0.1:1")
    assert done.code == 0, done
    board.guest.run("sh", "-c", f"echo mine >{MINE}; chown reconvene-agent: {MINE}")
    return board


@pytest.fixture(scope="module")
def good(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return altered(wheels, tmp_path_factory.mktemp("good") / "good", "0.2.0")


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("power", [False, True], ids=["kill", "power"])
@pytest.mark.parametrize("which", ["good", "broken"])
def test_a_version_on_trial(installed: Board, wheels: Path, tmp_path: Path, which: str, power: bool, moment: str) -> None:
    bundle = broken(wheels, tmp_path / "new") if which == "broken" else altered(wheels, tmp_path / "new", "0.2.0")
    installed.plant(bundle)
    before = installed.read(CONFIG)
    with installed.frozen(bundle, "upgrade", "--wait", "10", "--broker", "mqtt://127.0.0.1:2", before=moment) as stopped:
        assert stopped
        if power:
            installed.guest.cut_power()
    assert installed.settled() == ("0.1.0" if which == "broken" else "0.2.0")
    assert installed.leftovers() == []
    assert (installed.read(CONFIG) == before) == (which == "broken")
    assert installed.install(wheels, "--broker", "mqtt://127.0.0.1:1").code == 0
    assert installed.read(MINE) == "mine\n"


def test_killed_before_each_of_its_changes(installed: Board, wheels: Path, good: Path) -> None:
    """Half of the times the board is left alone with it, half of them the installer is called again at once."""
    installed.plant(good)
    other, target, calls, stopped = wheels, good, 0, "at the first"
    while stopped:
        calls += 1
        with installed.frozen(target, "upgrade", calls=calls) as stopped:
            pass
        if calls % 2:
            assert installed.settled() in ("0.1.0", "0.2.0"), stopped
        done = installed.install(target)
        assert done.code == 0, (stopped, done)
        assert installed.settled() == ("0.2.0" if target is good else "0.1.0"), stopped
        assert installed.versions() == ["0.1.0", "0.2.0"], stopped
        assert installed.leftovers() == [], stopped
        assert installed.read(MINE) == "mine\n"
        other, target = target, other
    assert calls > 30


def test_the_power_fails_while_it_goes_back(installed: Board, wheels: Path, tmp_path: Path) -> None:
    bundle = broken(wheels, tmp_path / "broken")
    before = installed.version(), installed.read(CONFIG)
    for moment in ("systemctl start --no-block reconvene-agent", "mv -T */current"):
        installed.plant(bundle)
        with installed.frozen(
            bundle, "upgrade", "--wait", "4", "--broker", "mqtt://127.0.0.1:2", before=moment, after=1
        ) as stopped:
            assert stopped
            installed.guest.cut_power()
        assert (installed.settled(), installed.read(CONFIG)) == before


@pytest.mark.parametrize("moment", FIRST)
def test_a_first_installation_that_is_killed_is_completed_by_the_next(installed: Board, wheels: Path, moment: str) -> None:
    assert installed.install(wheels, "uninstall").code == 0
    with installed.frozen(wheels, before=moment) as stopped:
        assert stopped
    assert installed.install(wheels).code == 0
    assert installed.settled() == "0.1.0"
    assert installed.guest.run("systemctl", "is-enabled", "reconvene-agent").out == "enabled\n"
    assert installed.read(MINE) == "mine\n"
    assert installed.owners(MINE) == {"reconvene-agent:reconvene-agent"}
