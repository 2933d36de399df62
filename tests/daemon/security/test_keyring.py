from __future__ import annotations

from pathlib import Path

import pytest

from reconvene_agent.core import keys, signing
from reconvene_agent.core.errors import UsageError
from reconvene_agent.daemon.security.keyring import trusted_keys
from support.signatures import SEED, TRUSTED, trusting


def refusal(folder: Path) -> str:
    with pytest.raises(UsageError) as caught:
        trusted_keys(str(folder))
    return caught.value.message


def test_all_keys_of_a_folder_are_trusted(tmp_path: Path) -> None:
    folder = trusting(tmp_path / "trusted", SEED, bytes(32))
    (folder / "README").write_text("no key")
    assert trusted_keys(str(folder)) == TRUSTED | {(other := signing.public_of(bytes(32))).id: other}


def test_a_folder_without_keys_does_not_switch_the_demand_off(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none") == f"security.trusted_keys: {tmp_path}/none: No such file or directory"
    (tmp_path / "empty").mkdir(mode=0o755)
    assert refusal(tmp_path / "empty").startswith("security.trusted_keys: no public key is in ")


def test_a_file_that_is_no_public_key_is_refused(tmp_path: Path) -> None:
    folder = trusting(tmp_path / "trusted")
    keys.write_private(folder / "mistake.pem", SEED)
    assert refusal(folder).endswith("it holds a PRIVATE KEY")
    (folder / "mistake.pem").write_text("")
    assert f"{folder}/mistake.pem does not hold an Ed25519 public key" in refusal(folder)


def test_keys_that_others_may_write_are_not_trusted(tmp_path: Path) -> None:
    folder = trusting(tmp_path / "trusted")
    (folder / "0.pem").chmod(0o664)
    assert refusal(folder) == f"security.trusted_keys: others may write {folder}/0.pem (mode 0664): chmod go-w {folder}/0.pem"
    (folder / "0.pem").chmod(0o644)
    folder.chmod(0o777)
    assert refusal(folder) == f"security.trusted_keys: others may write {folder} (mode 0777): chmod go-w {folder}"


def test_a_missing_library_is_found_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signing, "find_spec", lambda _: None)
    assert refusal(trusting(tmp_path / "trusted")) == "signatures need PyNaCl: pip install 'reconvene-agent[signing]'"
