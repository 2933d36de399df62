from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

import pytest

from reconvene_agent.cli.doctor import credentials
from reconvene_agent.cli.doctor.account import Account, acting_as
from reconvene_agent.cli.doctor.case import Case
from support.certificates import authority, dated
from support.doctoring import NOBODY, case, codes, told
from support.signatures import trusting

LONG = (-1, 900)


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an authority whose certificate lasts long enough."""
    signed, _ = dated(authority(tmp_path_factory.mktemp("ca"), "Root"), "ours", "DNS:ours", *LONG)
    return signed


@pytest.fixture(scope="module")
def root(ca: Path) -> Path:
    return ca.with_name("Root.pem")


def named(folder: Path, device: str = "board-1", **files: Path) -> Case:
    if "password_file" in files:
        files["username"] = Path("me")
    return case(
        folder, agent={"device_id": device}, broker={"url": "mqtts://broker", **{key: str(f) for key, f in files.items()}}
    )


def password(folder: Path, text: str = "sesame\n", mode: int = 0o600) -> Path:
    file = folder / "password"
    file.write_text(text)
    file.chmod(mode)
    return file


def pair(root: Path, name: str, days: tuple[float, float] = LONG) -> dict[str, Path]:
    made, key = dated(root, name, f"DNS:{name}", *days)
    return {"cert_file": made, "key_file": key}


def day(days: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(time.time() + days * 86400))


def test_nothing_is_named(tmp_path: Path) -> None:
    assert codes(credentials.check(case(tmp_path))) == [credentials.NONE.code]


def test_everything_in_order(tmp_path: Path, root: Path, ca: Path) -> None:
    files = pair(root, "board-1")
    secret = password(tmp_path)
    made = named(tmp_path, ca_file=ca, password_file=secret, **files)
    found = list(credentials.check(made))
    assert codes(found) == [credentials.GOOD.code]
    until = day(900)
    words = f"{ca} (until {until}), {files['cert_file']} (until {until}), {files['key_file']}, {secret}"
    assert told(found, credentials.GOOD).found == f"in order: {words}"


def test_keys_that_sign_commands(tmp_path: Path) -> None:
    folder = trusting(tmp_path / "keys")
    made = case(tmp_path, security={"trusted_keys": str(folder)})
    assert re.fullmatch(
        "commands must be signed with one of the keys [0-9a-f]{16}.*", told(credentials.check(made), credentials.KEYS).found
    )
    folder.chmod(0o777)
    found = told(credentials.check(made), credentials.BAD_KEYS)
    assert f"others may write {folder}" in found.found


@pytest.mark.usefixtures("as_root")
def test_keys_that_we_cannot_read(tmp_path: Path) -> None:
    made = case(tmp_path, security={"trusted_keys": str(trusting(tmp_path / "keys"))})
    made.service = Account.of_user(1)
    with acting_as(NOBODY):
        found = list(credentials.check(made))
    assert told(found, credentials.HIDDEN).found == f"you may not read {tmp_path}/keys (trusted_keys)"


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o660, 0o602])
def test_a_secret_that_is_open_to_others(tmp_path: Path, mode: int) -> None:
    secret = password(tmp_path, mode=mode)
    found = told(credentials.check(named(tmp_path, password_file=secret)), credentials.OPEN)
    assert found.found == f"{secret} (broker.password_file) is open to others (mode {mode:04o})"
    subprocess.run(found.advice.partition(";")[0].removeprefix("sudo "), shell=True, check=True)
    assert codes(credentials.check(named(tmp_path, password_file=secret))) == [credentials.GOOD.code]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o400])
def test_a_secret_that_a_group_may_read_is_not(tmp_path: Path, mode: int) -> None:
    assert codes(credentials.check(named(tmp_path, password_file=password(tmp_path, mode=mode)))) == [credentials.GOOD.code]


@pytest.mark.usefixtures("as_root")
def test_a_secret_that_the_service_cannot_read(everybodys: Path) -> None:
    made = named(everybodys, password_file=password(everybodys))
    made.service = NOBODY
    found = told(credentials.check(made), credentials.UNREADABLE)
    assert found.found == f"nobody cannot read {everybodys}/password (broker.password_file): Permission denied"
    subprocess.run(found.advice.replace("sudo ", ""), shell=True, check=True)
    assert codes(credentials.check(made)) == [credentials.GOOD.code], "what it says helps, and does not open it to others"


@pytest.mark.usefixtures("as_root")
def test_a_secret_that_we_cannot_read(everybodys: Path) -> None:
    made = named(everybodys, password_file=password(everybodys))
    made.service = Account.of_user(1)
    with acting_as(NOBODY):
        found = list(credentials.check(made))
    assert codes(found) == [credentials.HIDDEN.code]
    told(found, credentials.HIDDEN)


@pytest.mark.parametrize(("text", "why"), [("", "its first line is empty"), ("\nsesame\n", "its first line is empty")])
def test_a_password_that_is_none(tmp_path: Path, text: str, why: str) -> None:
    found = told(credentials.check(named(tmp_path, password_file=password(tmp_path, text))), credentials.USELESS)
    assert found.found == f"{tmp_path}/password (broker.password_file) cannot be used: {why}"


def damaged(certificate: Path, folder: Path) -> Path:
    file = folder / "damaged.pem"
    lines = certificate.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:3] + lines[-1:]))
    return file


def test_certificates_that_are_none(tmp_path: Path, ca: Path) -> None:
    file = tmp_path / "file"
    for content, why in (
        (b"\xff\xfe", "it is not text"),
        (b"hello", "it holds no certificate"),
        (None, "No such file or directory"),
    ):
        file.write_bytes(content or b"")
        made = named(tmp_path, ca_file=file)
        if content is None:
            file.unlink()
        assert told(credentials.check(made), credentials.USELESS).found == f"{file} (broker.ca_file) cannot be used: {why}"
    made = named(tmp_path, ca_file=damaged(ca, tmp_path))
    assert told(credentials.check(made), credentials.USELESS).found.endswith("cannot be used: its certificate is damaged")


def test_a_key_that_is_none(tmp_path: Path, root: Path) -> None:
    files = pair(root, "board-1")
    files["key_file"] = files["cert_file"]
    files["cert_file"].chmod(0o600)
    assert told(credentials.check(named(tmp_path, **files)), credentials.USELESS).found.endswith("it holds no private key")


def test_a_key_with_a_passphrase(tmp_path: Path, root: Path) -> None:
    files = pair(root, "board-1")
    locked = tmp_path / "locked.key"
    words = ["openssl", "ec", "-in", files["key_file"], "-aes128", "-passout", "pass:sesame", "-out", locked]
    subprocess.run([str(word) for word in words], check=True, capture_output=True)
    locked.chmod(0o600)
    found = told(credentials.check(named(tmp_path, cert_file=files["cert_file"], key_file=locked)), credentials.USELESS)
    assert found.found.startswith(f"{locked} (broker.key_file) cannot be used: ")


def test_a_key_of_another_certificate(tmp_path: Path, root: Path) -> None:
    ours, theirs = pair(root, "board-1"), pair(root, "board-2")
    made = named(tmp_path, cert_file=ours["cert_file"], key_file=theirs["key_file"])
    found = told(credentials.check(made), credentials.MISMATCH)
    assert found.found == f"the key {theirs['key_file']} is not that of the certificate {ours['cert_file']}"


def test_a_certificate_that_has_expired(tmp_path: Path, root: Path) -> None:
    files = pair(root, "board-1", (-30, -2))
    found = told(credentials.check(named(tmp_path, **files)), credentials.EXPIRED)
    assert found.found == f"the certificate {files['cert_file']} (broker.cert_file) has expired on {day(-2)}"
    assert "whoever issued it (Root)" in found.advice


def test_a_certificate_that_is_not_valid_yet(tmp_path: Path, root: Path) -> None:
    files = pair(root, "board-1", (40, 900))
    found = told(credentials.check(named(tmp_path, **files)), credentials.EARLY)
    assert found.found.endswith(f"(broker.cert_file) is valid from {day(40)} on, but the clock says {day(0)}")


def test_a_certificate_that_will_expire(tmp_path: Path, root: Path) -> None:
    files = pair(root, "board-1", (-90, 12.5))
    found = told(credentials.check(named(tmp_path, **files)), credentials.ENDING)
    assert found.found.endswith(f"expires on {day(12.5)}, in 12 days")


def test_of_several_authorities_the_one_that_lasts_longest_counts(tmp_path: Path, root: Path, ca: Path) -> None:
    both = tmp_path / "both.pem"
    old, _ = dated(root, "old", "DNS:old", -30, -2)
    both.write_text(old.read_text() + ca.read_text())
    assert codes(credentials.check(named(tmp_path, ca_file=both))) == [credentials.GOOD.code]


def test_a_certificate_for_another_board(tmp_path: Path, root: Path) -> None:
    files = pair(root, "board-7")
    found = told(credentials.check(named(tmp_path, **files)), credentials.OTHER_NAME)
    assert "is for board-7, but the device id is board-1" in found.found
