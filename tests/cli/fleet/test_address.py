"""Where the broker is: the command line's word, else a file's, and never a secret of one broker for another."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from reconvene_agent.cli.fleet.address import VARIABLE, add_arguments, address
from reconvene_agent.core.errors import AgentError, UsageError
from support.commandline import configured


@pytest.fixture(autouse=True)
def _unconfigured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("RECONVENE_AGENT_CONFIG", "/dev/null")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a configuration with a broker and its password."""
    password = tmp_path / "password"
    password.write_text("secret\n")
    broker = {"url": "mqtts://one:1234", "username": "me", "password_file": str(password), "root": "r", "protocol": "5"}
    return configured(tmp_path, broker=broker)


def parsed(*words: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args([str(word) for word in words])


def test_all_of_a_file_is_taken(file: Path) -> None:
    place = address(parsed("--config", file))
    link = place.link
    assert (link.host, link.port, link.tls, link.username, link.password, link.protocol) == (
        "one",
        1234,
        True,
        "me",
        "secret",
        "5",
    )
    assert place.root == "r"
    assert link.session_s == 0, "a controller leaves nothing behind"


def test_the_variable_names_the_file_and_the_option_goes_first(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(file))
    assert address(parsed()).link.host == "one"
    (tmp_path / "x").mkdir()
    assert address(parsed("--config", configured(tmp_path / "x", broker={"url": "mqtt://other"}))).link.host == "other"


def test_the_agents_own_file_is_the_last_resort(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECONVENE_AGENT_CONFIG", str(file))
    assert address(parsed()).link.host == "one"


def test_options_go_over_the_file(file: Path) -> None:
    place = address(parsed("--config", file, "--root", "other", "--protocol", "3.1.1", "--client-id", "mine"))
    assert (place.link.host, place.link.protocol, place.link.client_id, place.root) == ("one", "3.1.1", "mine", "other")


def test_another_broker_gets_none_of_the_files_secrets(file: Path) -> None:
    link = address(parsed("--config", file, "--broker", "mqtt://two")).link
    assert (link.host, link.port, link.username, link.password, link.protocol) == ("two", 1883, "", "", "auto")


def test_no_two_controllers_take_each_others_place() -> None:
    ids = {address(parsed("--broker", "mqtt://x")).link.client_id for _ in range(20)}
    assert len(ids) == 20


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ((), "no broker is configured"),
        (("--broker", "http://x"), "broker.url: must look like mqtt"),
        (("--broker", "mqtt://me:secret@x"), "must hold no user or password"),
        (("--broker", "mqtt://x", "--ca", "/dev/null"), "need an mqtts:// url"),
        (("--broker", "mqtts://x", "--cert", __file__), "cert_file and key_file go together"),
        (("--broker", "mqtts://x", "--ca", "/absent"), "/absent is not a file"),
        (("--broker", "mqtt://x", "--root", "a/b"), "broker.root: must be one topic level"),
        (("--broker", "mqtt://x", "--settle", "0"), "--settle must be more than 0 seconds"),
    ],
)
def test_what_is_wrong_is_told(words: tuple[str, ...], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        address(parsed(*words))


def test_a_password_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    with pytest.raises(AgentError, match="no password can be read from"):
        address(parsed("--broker", "mqtt://x", "--username", "me", "--password-file", tmp_path / "empty"))
