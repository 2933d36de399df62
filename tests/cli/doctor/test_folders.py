from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from msgspec.structs import replace

from reconvene_agent.cli.doctor import disk, folders
from reconvene_agent.cli.doctor.account import Account, acting_as
from reconvene_agent.cli.doctor.case import Case
from reconvene_agent.core import bundle
from support.disks import fill, tiny_disk
from support.doctoring import NOBODY, case, codes, told
from support.values import manifest


def furnished(folder: Path, account: Account | None = None, **specialize: str) -> Case:
    """Return a case with every folder in it, and the account that the agent has."""
    made = case(folder, specialize=specialize)
    assert made.config is not None
    for path in (made.config.bundles_dir, made.config.data_dir):
        path.mkdir()
        path.chmod(0o755)
    if account is not None:
        made.service = account
    return made


def state_of(made: Case) -> Path:
    assert made.config is not None
    return made.config.state_dir


def test_folders_in_order(tmp_path: Path) -> None:
    made = furnished(tmp_path)
    state = state_of(made)
    assert told(folders.check(made), folders.GOOD).found.endswith(f": {state}, {state}/bundles, {state}/data")
    assert sorted(path.name for path in state.iterdir()) == ["bundles", "data"], "nothing is left behind"


@pytest.mark.usefixtures("as_root")
def test_the_folder_for_the_socket_may_be_absent_and_must_not_be_closed(everybodys: Path) -> None:
    made = furnished(everybodys)
    run = everybodys / "run"
    assert made.config is not None
    made.config = replace(made.config, agent=replace(made.config.agent, runtime_dir=str(run)))
    assert codes(folders.check(made)) == [folders.GOOD.code]
    run.mkdir()
    os.chown(state_of(made), NOBODY.uid, NOBODY.gid)
    made.service = NOBODY
    assert f"nobody cannot write into {run} (agent.runtime_dir)" in told(folders.check(made), folders.UNWRITABLE).found


def test_a_file_in_the_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in ("file", "file/deeper"):
        made = case(tmp_path, agent={"state_dir": str(tmp_path / place)})
        found = list(folders.check(made))
        assert found[0].code in (folders.UNWRITABLE.code, folders.ABSENT.code)
        assert codes(disk.check(made)) == [disk.GOOD.code]


def test_folders_that_are_not_there(tmp_path: Path) -> None:
    made = case(tmp_path)
    found = [each for each in folders.check(made) if each.code == folders.ABSENT.code]
    assert [each.found for each in found] == [
        f"there is no folder {tmp_path}/state/{name} (agent.{name}_dir)" for name in ("bundles", "data")
    ]
    subprocess.run(found[0].advice.removeprefix("sudo "), shell=True, check=True)
    assert told(folders.check(made), folders.ABSENT).found.endswith("(agent.data_dir)")


def test_of_folders_in_a_folder_that_is_not_there_nothing_is_said(tmp_path: Path) -> None:
    made = case(tmp_path)
    state_of(made).rmdir()
    found = list(folders.check(made))
    assert codes(found) == [folders.ABSENT.code]
    assert told(found, folders.ABSENT).found == f"there is no folder {tmp_path}/state (agent.state_dir)"


@pytest.mark.usefixtures("as_root")
def test_folders_of_others_are_not_looked_at(everybodys: Path, tmp_path: Path) -> None:
    """An ordinary user cannot tell what the service may do, whether or not the folders can be seen."""
    seen, unseen = furnished(everybodys, Account.of_user(1)), furnished(tmp_path, Account.of_user(1))
    with acting_as(NOBODY):
        found = list(folders.check(seen))
        hidden = list(folders.check(unseen))
    assert codes(found) == codes(hidden) == [folders.HIDDEN.code] * 3
    assert hidden[0].found == f"you may not look at {tmp_path}/state (agent.state_dir)"
    assert hidden[0].advice == "sudo reconvene-agent doctor"
    told(hidden[:1], folders.HIDDEN)


@pytest.mark.usefixtures("as_root")
def test_a_state_that_belongs_to_somebody_else(everybodys: Path) -> None:
    made = furnished(everybodys, NOBODY)
    found = told(folders.check(made), folders.UNWRITABLE)
    assert found.found == f"nobody cannot write into {everybodys}/state (agent.state_dir): Permission denied"
    subprocess.run(found.advice.replace("sudo ", ""), shell=True, check=True)
    assert codes(folders.check(made)) == [folders.GOOD.code], "what it says helps"


@pytest.mark.usefixtures("as_root")
def test_files_that_root_has_left_behind(everybodys: Path) -> None:
    made = furnished(everybodys, NOBODY)
    state = state_of(made)
    os.chown(state, NOBODY.uid, NOBODY.gid)
    (state / "journal.db").touch(mode=0o600)
    found = told(folders.check(made), folders.FOREIGN)
    assert found.found == f"nobody cannot write {state}/journal.db"
    subprocess.run(found.advice.replace("sudo ", ""), shell=True, check=True)
    assert codes(folders.check(made)) == [folders.GOOD.code]


@pytest.mark.usefixtures("as_root")
def test_a_folder_that_cannot_be_read(everybodys: Path) -> None:
    made = furnished(everybodys, NOBODY)
    os.chown(state_of(made), NOBODY.uid, NOBODY.gid)
    data = state_of(made) / "data"
    data.chmod(0o700)
    found = told(folders.check(made), folders.UNREADABLE)
    assert found.found == f"nobody cannot read {data} (agent.data_dir)"
    subprocess.run(found.advice.partition(", and")[0].replace("sudo ", ""), shell=True, check=True)
    assert codes(folders.check(made)) == [folders.GOOD.code]


def test_a_full_disk_takes_nothing(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "small", "256k") as small:
        made = furnished(small)
        fill(small)
        found = told(folders.check(made), folders.NO_ROOM)
    assert found.found.endswith(f"even 4 KiB into {small}/state (agent.state_dir): No space left on device")


def test_a_disk_that_is_read_only_takes_nothing_either(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "small", "256k") as small:
        made = furnished(small)
        subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
        assert told(folders.check(made), folders.NO_ROOM).found.endswith(": Read-only file system")


def test_what_is_named_and_not_there(tmp_path: Path) -> None:
    made = furnished(tmp_path, bundle="ours", data="pictures")
    found = [each for each in folders.check(made) if each.code == folders.NOT_THERE.code]
    assert [each.found for each in found] == [
        f"specialize.bundle names ours, which is not in {tmp_path}/state/bundles",
        f"specialize.data names pictures, which is not in {tmp_path}/state/data",
    ]
    told(found[:1], folders.NOT_THERE)


def test_a_bundle_that_is_not_whole(tmp_path: Path) -> None:
    made = furnished(tmp_path, bundle="ours")
    ours = state_of(made) / "bundles/ours"
    ours.mkdir()
    assert f"{ours} is not a bundle: it has no bundle.toml" in told(folders.check(made), folders.BAD_BUNDLE).found
    bundle.write_manifest(ours, manifest())
    assert codes(folders.check(made)) == [folders.GOOD.code]
