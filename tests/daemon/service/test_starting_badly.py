from __future__ import annotations

from pathlib import Path

from reconvene_agent.core.errors import EXIT_CODES, ErrorCode
from reconvene_agent.core.release import CURRENT
from support.daemons import Daemon
from support.signatures import trusting


def failed_start(made: Daemon) -> tuple[int, list[str]]:
    process = made.launch()
    code = process.wait(20)
    lines = made.log.splitlines()
    assert "Traceback" not in made.log
    return code, [line for line in lines if line.startswith("reconvene-agent: error: ")]


def test_a_wrong_configuration(tmp_path: Path) -> None:
    made = Daemon(tmp_path, "http://nowhere", worker={"attempts": 0})
    code, lines = failed_start(made)
    assert code == EXIT_CODES[ErrorCode.SCHEMA]
    assert [f"{made.config}: " in line for line in lines] == [True, True]
    assert "worker.attempts" in lines[0]
    assert "broker.url" in lines[1]


def test_a_configuration_that_is_not_there(tmp_path: Path) -> None:
    made = Daemon(tmp_path)
    made.config.unlink()
    code, lines = failed_start(made)
    assert (code, len(lines)) == (EXIT_CODES[ErrorCode.SCHEMA], 1)


def test_a_second_daemon_on_the_same_state(tmp_path: Path) -> None:
    with Daemon(tmp_path) as first:
        second = Daemon(tmp_path)
        second.log_file = tmp_path / "second"
        code, lines = failed_start(second)
        assert code == EXIT_CODES[ErrorCode.BUSY]
        assert lines == [f"reconvene-agent: error: another agent already runs on {first.state}"]
        assert first.status()["state"] == "idle"


def test_the_state_of_a_newer_agent(tmp_path: Path) -> None:
    made = Daemon(tmp_path)
    made.state.mkdir(exist_ok=True)
    (made.state / "format").write_text("2\n")
    code, lines = failed_start(made)
    assert (code, len(lines)) == (EXIT_CODES[ErrorCode.UNSUPPORTED], 1)
    assert f"the state in {made.state} was written by a newer reconvene-agent" in lines[0]
    assert not list(made.state.glob("*.db"))


def test_a_tls_file_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("rubbish")
    code, lines = failed_start(Daemon(tmp_path, "mqtts://nowhere", broker={"ca_file": str(tmp_path / "ca.pem")}))
    assert (code, len(lines)) == (EXIT_CODES[ErrorCode.SCHEMA], 1)
    assert f"error: broker.ca_file: {tmp_path}/ca.pem holds no certificate that can be used: " in lines[0]


def test_a_password_that_everybody_may_read(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("sesame\n")
    password.chmod(0o644)
    broker = {"username": "me", "password_file": str(password)}
    code, lines = failed_start(Daemon(tmp_path, "mqtt://nowhere", broker=broker))
    assert code == EXIT_CODES[ErrorCode.SCHEMA]
    what = f"broker.password_file: the password file {password} is open to others (mode 0644)"
    assert lines == [f"reconvene-agent: error: {what}: chmod o=,g-w {password}"]


_WITHOUT_LIBRARY = """
import sys
from reconvene_agent.core import signing
signing.find_spec = lambda _: None
from reconvene_agent.daemon import __main__ as entry
sys.exit(entry.main(sys.argv[1:]))
"""


def test_trusted_keys_without_the_library_that_checks_signatures(tmp_path: Path) -> None:
    made = Daemon(tmp_path, security={"trusted_keys": str(trusting(tmp_path / "trusted"))})
    made.program = ("-c", _WITHOUT_LIBRARY)
    code, lines = failed_start(made)
    assert code == EXIT_CODES[ErrorCode.SCHEMA]
    assert lines == ["reconvene-agent: error: signatures need PyNaCl: pip install 'reconvene-agent[signing]'"]


def test_trusted_keys_that_are_none(tmp_path: Path) -> None:
    code, lines = failed_start(Daemon(tmp_path, security={"trusted_keys": str(tmp_path / "nowhere")}))
    assert code == EXIT_CODES[ErrorCode.SCHEMA]
    assert lines == [f"reconvene-agent: error: security.trusted_keys: {tmp_path}/nowhere: No such file or directory"]


def test_a_state_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    made = Daemon(tmp_path, agent={"state_dir": str(tmp_path / "file/state")})
    code, lines = failed_start(made)
    assert code == EXIT_CODES[ErrorCode.INTERNAL]
    assert lines == [f"reconvene-agent: error: the state folder {tmp_path}/file/state cannot be used: Not a directory"]


def test_an_unknown_profile(tmp_path: Path) -> None:
    code, lines = failed_start(Daemon(tmp_path, agent={"profile": "toaster"}))
    assert (code, len(lines)) == (EXIT_CODES[ErrorCode.SCHEMA], 1)
    assert "no profile is named 'toaster'" in lines[0]


def test_damaged_state_is_set_aside(tmp_path: Path) -> None:
    made = Daemon(tmp_path)
    for name in ("journal.db", "spool.db", "status.json", "control.sock"):
        (made.state / name).write_bytes(b"rubbish" * 1000)
    (made.state / "models").mkdir()
    (made.state / "models" / CURRENT).symlink_to("gone")
    with made:
        assert made.status()["state"] == "idle"
        assert (made.state / "journal.db.broken").exists()
