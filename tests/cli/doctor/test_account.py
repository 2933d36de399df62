from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from reconvene_agent.cli.doctor.account import Account, acting_as
from support.doctoring import NOBODY


def test_this_process() -> None:
    me = Account.of_this_process()
    assert me.uid == os.geteuid()
    assert me.name == pwd.getpwuid(os.geteuid()).pw_name
    assert me.reachable


def test_a_user_without_a_name_goes_by_number() -> None:
    ghost = Account.of_user(987_654)
    assert (ghost.name, ghost.group, ghost.groups) == ("987654", "987654", ())


def test_where_the_service_is_not_installed_it_has_no_account() -> None:
    expected = any(entry.pw_name == "reconvene-agent" for entry in pwd.getpwall())
    assert (Account.of_service() is not None) is expected


@pytest.mark.usefixtures("as_root")
def test_for_a_moment_others_rights_are_ours_also_when_that_fails(tmp_path: Path) -> None:
    before = (os.geteuid(), os.getegid(), os.getgroups())
    secret = tmp_path / "secret"
    secret.touch(mode=0o600)
    with acting_as(NOBODY):
        assert not Account.of_user(0).reachable
    with pytest.raises(PermissionError), acting_as(NOBODY):
        secret.read_bytes()
    assert (os.geteuid(), os.getegid(), os.getgroups()) == before
    secret.read_bytes()


@pytest.mark.usefixtures("as_root")
def test_who_may_not_become_somebody_else_stays(tmp_path: Path) -> None:
    with acting_as(NOBODY), acting_as(Account.of_user(1)):
        assert os.geteuid() == NOBODY.uid
