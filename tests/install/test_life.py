"""The life of an installation on a real systemd: each test goes on from where the one before has left the board."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.installing import WORKER, Board, altered, broken
from support.waiting import until

pytestmark = pytest.mark.timeout(400)

UNIT = "/etc/systemd/system/reconvene-agent.service"
STATE = "/var/lib/reconvene-agent"


def newer(wheels: Path, tmp_path: Path) -> Path:
    """Return wheels of a version whose state the present one does not know."""
    return altered(
        wheels, tmp_path / "newer", "0.2.0", "reconvene_agent/daemon/storage/state_format.py", "FORMAT = 1", "FORMAT = 2"
    )


def test_an_installation_without_a_network(board: Board, wheels: Path) -> None:
    done = board.install(wheels, "--worker-python", WORKER, "--broker", "mqtt://127.0.0.1:1")
    assert done.code == 0, done
    assert board.guest.run("systemctl", "is-enabled", "reconvene-agent").out == "enabled\n"
    assert board.guest.run("systemctl", "is-active", "reconvene-agent").out == "active\n"
    status = board.guest.run("reconvene-agent", "status", "--json").document
    assert status["broker"]["url"] == "mqtt://127.0.0.1:1"
    assert board.guest.run("reconvene-agent", "doctor", "--offline", "--json").code == 0
    assert board.guest.run("stat", "-c", "%U:%G %a", "/etc/reconvene-agent/config.toml").out == "root:reconvene-agent 640\n"


def test_the_bytecode_lies_at_hand_and_is_taken_as_it_is(board: Board) -> None:
    code = "import reconvene_agent.daemon.service.loop as s, marshal; raw = open(s.__cached__, 'rb').read()[16:]; "
    told = board.guest.run("/opt/reconvene-agent/current/bin/python", "-Bc", code + "print(marshal.loads(raw).co_filename)")
    assert told.out.startswith("/opt/reconvene-agent/current/lib/python3."), told


def test_again_there_is_nothing_to_do(board: Board, wheels: Path) -> None:
    before = board.guest.run("systemctl", "show", "--property=MainPID", "reconvene-agent").out
    done = board.install(wheels)
    assert done.code == 0, done
    assert done.err.endswith("is installed and runs; there is nothing to do\n")
    assert board.guest.run("systemctl", "show", "--property=MainPID", "reconvene-agent").out == before


def test_a_configuration_that_does_not_fit_changes_nothing(board: Board, wheels: Path) -> None:
    before = board.read("/etc/reconvene-agent/config.toml")
    done = board.install(wheels, "--broker", "http://nowhere")
    assert done.code == 1
    assert "broker.url" in done.err
    assert board.read("/etc/reconvene-agent/config.toml") == before
    assert board.version() == "0.1.0"


def test_an_upgrade_that_does_not_come_up_goes_back_by_itself(board: Board, wheels: Path, tmp_path: Path) -> None:
    bundle = broken(wheels, tmp_path / "broken")
    before = board.read(UNIT), board.read("/etc/reconvene-agent/config.toml")
    done = board.install(bundle, "upgrade", "--wait", "8", "--broker", "mqtt://127.0.0.1:2")
    assert done.code == 1
    assert "ZeroDivisionError" in done.err
    assert "Start request repeated too quickly" in done.err
    assert "the change to 0.3.0" in done.err.splitlines()[-1]
    assert "was taken back" in done.err.splitlines()[-1]
    assert board.version() == "0.1.0"
    assert (board.read(UNIT), board.read("/etc/reconvene-agent/config.toml")) == before
    assert board.guest.run("test", "-e", "/etc/systemd/system/extra.slice").code == 1
    assert board.versions() == ["0.1.0"]


def test_the_power_fails_before_a_broken_version_is_found_out(board: Board, wheels: Path, tmp_path: Path) -> None:
    """Nobody but systemd is left to go back."""
    bundle = broken(wheels, tmp_path / "broken")
    where = board.plant(bundle)
    before = board.read(UNIT), board.read("/etc/reconvene-agent/config.toml")
    words = ("upgrade", "--wait", "4", "--broker", "mqtt://127.0.0.1:2")
    with board.frozen(bundle, *words, before="systemctl start --no-block reconvene-agent") as stopped:
        assert stopped
        assert board.guest.run("readlink", "/opt/reconvene-agent/current").out == f"versions/{Path(where).name}\n"
        board.guest.cut_power()
    assert board.settled() == "0.1.0"
    assert board.leftovers() == []
    assert board.judgement()[-1] == f"install.sh: error: the change to {Path(where).name} was taken back"
    assert (board.read(UNIT), board.read("/etc/reconvene-agent/config.toml")) == before
    assert board.guest.run("test", "-e", "/etc/systemd/system/extra.slice").code == 1


def test_the_installer_is_killed_before_a_good_version_has_proved_itself(board: Board, wheels: Path, tmp_path: Path) -> None:
    bundle = altered(wheels, tmp_path / "good", "0.1.1")
    board.plant(bundle)
    with board.frozen(bundle, "upgrade", before="systemctl start --no-block reconvene-agent") as stopped:
        assert stopped
    assert board.settled() == "0.1.1"
    assert board.leftovers() == []
    assert board.versions() == ["0.1.0", "0.1.1"]
    assert not [line for line in board.judgement() if "note:" in line], "nothing was added to the old version"
    assert board.install(wheels, "upgrade").code == 0
    assert board.version() == "0.1.0"


@pytest.mark.long
def test_an_interrupted_upgrade_changes_nothing_and_can_be_done_again(board: Board, wheels: Path, tmp_path: Path) -> None:
    bundle = newer(wheels, tmp_path)
    for said in ("install.sh: installing", "install.sh: starting the service"):
        with board.guest.popen(bundle / "install.sh", "upgrade") as process:
            assert process.stderr is not None
            lines = []
            for line in process.stderr:
                lines.append(line)
                if line.startswith(said):
                    (inside,) = board.guest.run("pgrep", "-f", "newer/install.sh upgrade").out.split()[:1]
                    board.guest.run("kill", inside)
            code = process.wait(60)
        assert code == 143, lines
        assert any("install.sh: interrupted" in line for line in lines)
        until(lambda: board.guest.run("systemctl", "is-active", "reconvene-agent").out == "active\n", 30)
        assert board.version() == "0.1.0"
    done = board.install(bundle, "upgrade")
    assert done.code == 0, done
    assert board.version() == "0.2.0"
    assert board.versions() == ["0.1.0", "0.2.0"]


@pytest.mark.long
def test_a_downgrade_to_what_does_not_know_the_state_goes_back_and_says_why(board: Board, wheels: Path) -> None:
    done = board.install(wheels, "upgrade", "--wait", "8")
    assert done.code == 1
    assert f"the state in {STATE} was written by a newer reconvene-agent (format 2, this one knows 1)" in done.err
    assert board.version() == "0.2.0"
    assert board.versions() == ["0.1.0", "0.2.0"]


@pytest.mark.long
def test_a_downgrade_to_what_knows_the_state(board: Board, wheels: Path) -> None:
    board.guest.run("sh", "-c", f"echo 1 >{STATE}/format")
    done = board.install(wheels, "upgrade")
    assert done.code == 0, done
    assert board.version() == "0.1.0"


@pytest.mark.long
def test_a_service_that_was_stopped_stays_so(board: Board, wheels: Path) -> None:
    board.guest.run("systemctl", "stop", "reconvene-agent")
    done = board.install(wheels, "upgrade")
    assert done.code == 0, done
    assert "the service was stopped before, and stays so" in done.err
    assert board.guest.run("systemctl", "is-active", "reconvene-agent").out == "inactive\n"
    board.guest.run("systemctl", "start", "reconvene-agent")


def test_uninstalled_it_leaves_what_it_says(board: Board, wheels: Path) -> None:
    board.guest.run("sh", "-c", f"echo mine >{STATE}/mine; chown reconvene-agent: {STATE}/mine")
    done = board.install(wheels, "uninstall")
    assert done.code == 0, done
    left = {path for path in board.guest.changed() if "reconvene" in path}
    assert {path.rpartition("/reconvene-agent/")[0] for path in left} <= {"etc", "var/lib", ""}
    assert board.read(f"{STATE}/mine") == "mine\n"
    assert board.owners(STATE) == {"root:root"}
    assert board.guest.run("id", "reconvene-agent").code == 1
    assert "reconvene" not in board.read("/etc/group")
    # systemd forgets a unit without a file in its own time.
    until(lambda: not board.guest.run("systemctl", "list-units", "--all", "--no-legend", "*reconvene*").out.strip(), 60)
    assert board.install(wheels, "uninstall").code == 0


@pytest.mark.long
def test_installed_again_it_takes_up_what_was_kept(board: Board, wheels: Path) -> None:
    done = board.install(wheels)
    assert done.code == 0, done
    assert board.read(f"{STATE}/mine") == "mine\n"
    assert board.owners(STATE) == {"reconvene-agent:reconvene-agent"}


def test_purged_it_leaves_nothing(board: Board, wheels: Path) -> None:
    done = board.install(wheels, "uninstall", "--purge")
    assert done.code == 0, done
    assert {path for path in board.guest.changed() if "reconvene" in path} == set()
    assert board.guest.run("test", "-e", "/opt/reconvene-agent").code == 1
    assert "reconvene" not in board.read("/etc/passwd")
