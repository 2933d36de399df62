"""``keys``: what a controller does with its key, and what the documentation shows of it."""

from __future__ import annotations

import binascii
import re
import stat
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reconvene_agent.core import clock, keys, signing
from support.commandline import Cli

DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture
def key(cli: Cli, tmp_path: Path) -> Path:
    file = tmp_path / "fleet.pem"
    assert cli("keys", "generate", file).code == 0
    return file


def test_generate_makes_two_files_and_writes_over_none(cli: Cli, tmp_path: Path, key: Path) -> None:
    public = tmp_path / "fleet.pub.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    before = (key.read_bytes(), public.read_bytes())
    again = cli("keys", "generate", key)
    assert (again.code, again.complaint) == (
        2, f"{public} is already there, and a key is never written over: name another file"
    )  # fmt: skip
    public.rename(tmp_path / "moved")
    assert cli("keys", "generate", key).complaint.startswith(f"{key} is already there")
    assert (key.read_bytes(), (tmp_path / "moved").read_bytes()) == before
    document = cli("keys", "generate", tmp_path / "other", "--json").document
    assert (document["private"], document["public"]) == (str(tmp_path / "other"), str(tmp_path / "other.pub.pem"))
    assert keys.read_public(Path(document["public"])).id == document["key"]


def test_both_halves_show_the_same_id(cli: Cli, tmp_path: Path, key: Path) -> None:
    private, public = (cli("keys", "show", file, "--json").document for file in (key, tmp_path / "fleet.pub.pem"))
    assert private == {**public, "kind": "private"}
    assert public["kind"] == "public"
    assert cli("keys", "show", key).out == f"key {public['key']} (private)\n{public['public_pem']}"


def test_what_is_signed_can_be_published_as_it_is(cli: Cli, key: Path) -> None:
    words = ("keys", "sign", "rollback", "--key", key, "--device", "board-1", "--id", "undo-1", "--args", '{"steps": 2}')
    ended = cli(*words, "--expires", "10m", "--not-before", "2026-01-01T00:00:00Z", "--timeout-s", "5", "--requester", "me")
    payload = msgspec.json.decode(ended.out)
    assert {name: payload[name] for name in ("status", "args", "not_before", "timeout_s", "requester")} == {
        "status": "init", "args": {"steps": 2}, "not_before": "2026-01-01T00:00:00Z", "timeout_s": 5.0, "requester": "me"
    }  # fmt: skip
    assert clock.wall_seconds(payload["expires_at"]) - clock.wall_seconds(payload["issued_at"]) == pytest.approx(600, abs=0.01)
    public = signing.public_of(keys.read_private(key))
    assert signing.verify({public.id: public}, "rollback", "board-1", "undo-1", payload)
    document = cli(*words, "--json", "--root", "fleet").document
    assert document["topic"] == "fleet/device/board-1/service/reconvene-agent/cmd/rollback/undo-1"
    assert signing.verify({public.id: public}, "rollback", "board-1", "undo-1", document["payload"])
    assert f'"nonce":"{document["payload"]["sig"]["nonce"]}"' in document["signed"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("sign", "rollback", "--args", '{"steps":7}'), "wrong arguments: steps: Expected `int` <= 2"),
        (("sign", "rollback", "--args", "[]"), "--args must be a JSON object"),
        (("sign", "rollback", "--args", "{"), "--args must be a JSON object"),
        (("sign", "reboot"), "operation 'reboot' is not known; there are: "),
        (("sign", "plan", "--expires", "8d"), "a signed command must expire after its issued_at, within 7 days"),
        (("sign", "plan", "--expires", "0s"), "a signed command must expire after its issued_at, within 7 days"),
        (("sign", "plan", "--expires", "soon"), "--expires must look like 90s, 10m, 1h or 7d, not 'soon'"),
        (("sign", "plan", "--not-before", "soon"), "the command does not fit its schema: Invalid RFC3339"),
        (("sign", "plan", "--timeout-s", "0"), "the command does not fit its schema: timeout_s: "),
        (("sign", "plan", "--device", "a/b"), "device must be made of letters, digits and . _ : -, at most 128, not 'a/b'"),
        (("sign", "plan", "--root", "#"), "root must be made of"),
        (("sign", "plan", "--key", "/nowhere"), "/nowhere cannot be read: No such file or directory"),
        (("show", "/nowhere"), "/nowhere cannot be read: No such file or directory"),
        (("generate", "/nowhere/key.pem"), "/nowhere/key.pem: No such file or directory"),
    ],
)
def test_mistakes_are_one_line(cli: Cli, key: Path, words: tuple[str, ...], complaint: str) -> None:
    needed: tuple[Any, ...] = ("--key", key, "--device", "b", "--id", "1") if words[0] == "sign" else ()
    ended = cli("keys", words[0], *needed, *words[1:])
    assert ended.code in (1, 2, 11)
    assert ended.complaint.startswith(complaint)


def test_a_key_that_others_may_read_signs_nothing(cli: Cli, key: Path) -> None:
    key.chmod(0o604)
    ended = cli("keys", "sign", "plan", "--key", key, "--device", "b", "--id", "1", "--json")
    ended.error("SCHEMA")
    assert ended.complaint == f"the private key {key} is open to others (mode 0604): chmod o=,g-w {key}"


def test_a_missing_library_is_told(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signing, "find_spec", lambda _: None)
    ended = cli("keys", "generate", tmp_path / "key.pem")
    assert (ended.code, ended.complaint) == (2, "signatures need PyNaCl: pip install 'reconvene-agent[signing]'")


def test_every_key_of_the_documents_is_described(cli: Cli, tmp_path: Path, key: Path) -> None:
    found = re.search(r"^## keys\n(.*?)(?=^## )", (DOCS / "json.md").read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    for words in (("generate", tmp_path / "more"), ("show", key), ("sign", "plan", "--key", key, "--device", "b", "--id", "1")):
        assert all(name in found[1] for name in cli("keys", *words, "--json").document)


def test_the_worked_example_is_right(tmp_path: Path) -> None:
    """As a reader would follow it: the bytes, the key, the value, and that the agent accepts the outcome."""
    text = (DOCS / "security.md").read_text()
    example = text.partition("### A worked example")[2].partition("\n### ")[0]
    private, public, request, message, value = re.findall(r"^```(?:json)?\n(.*?)\n```$", example, re.MULTILINE | re.DOTALL)
    (tmp_path / "private.pem").write_text(private)
    (tmp_path / "private.pem").chmod(0o600)
    (tmp_path / "public.pem").write_text(public)
    key, seed = keys.read_public(tmp_path / "public.pem"), keys.read_private(tmp_path / "private.pem")
    assert f"the id `{key.id}`" in example
    assert f"{len(message.encode())} bytes" in example
    assert signing.public_of(seed) == key
    assert binascii.b2a_base64(signing.signature(seed, message.encode()), newline=False).decode() == value
    nonce = re.search(r"nonce `(\w+)`", example)
    assert nonce is not None
    payload = msgspec.json.decode(request) | {"sig": {"key": key.id, "nonce": nonce[1], "value": value}}
    assert signing.verify({key.id: key}, "specialize", "board-1", "run-1", payload)
    assert signing.signed_bytes("specialize", "board-1", "run-1", payload, nonce[1]) == message.encode()
