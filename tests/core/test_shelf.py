from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconvene_agent.core import atomic, release, shelf
from reconvene_agent.core.errors import AgentError, ErrorCode, UsageError
from reconvene_agent.core.release import CURRENT, MANIFEST, ONNX
from reconvene_agent.core.shelf import NOTES, Fall, Shelf, Switch
from support.shelves import prepared, publish, refuse, serving, tear
from support.values import NASTY_JSON


def filled(models: Path, count: int) -> list[str]:
    return [publish(models, number) for number in range(1, count + 1)]


# --- publishing and sweeping ----------------------------------------------------------------------------------------------


def test_a_run_that_prepared_the_same_file_again_goes_on(tmp_path: Path) -> None:
    version = publish(tmp_path, 1)
    (tmp_path / CURRENT).unlink()
    assert publish(tmp_path, 1) == version
    assert serving(tmp_path) == version
    assert sorted(path.name for path in tmp_path.iterdir()) == [CURRENT, version, NOTES]


def test_two_steps_back_are_kept(tmp_path: Path) -> None:
    made = filled(tmp_path, 5)
    assert release.versions(tmp_path) == made[2:]
    assert Shelf(tmp_path).sweep() == []


def test_ten_thousand_releases_stay_in_order(tmp_path: Path) -> None:
    for name in ("r9998-0000000a", "r9999-0000000b"):
        Shelf(tmp_path).publish(prepared(tmp_path, name.encode())[0], name)
    made = publish(tmp_path, 12)
    assert made.startswith("r10000-")
    assert release.versions(tmp_path) == ["r9998-0000000a", "r9999-0000000b", made]
    assert Shelf(tmp_path).sweep() == []
    assert publish(tmp_path, 13).startswith("r10001-")
    assert release.versions(tmp_path)[0] == "r9999-0000000b"


def test_what_was_gone_back_from_is_kept_until_something_newer_serves(tmp_path: Path) -> None:
    made = filled(tmp_path, 3)
    Shelf(tmp_path).rollback()
    assert Shelf(tmp_path).sweep() == []
    newest = publish(tmp_path, 4)
    assert release.versions(tmp_path) == [*made[:2], newest]


def test_the_two_steps_back_are_those_that_served(tmp_path: Path) -> None:
    made = filled(tmp_path, 3)
    Shelf(tmp_path).rollback()
    newest = publish(tmp_path, 4)
    assert Shelf(tmp_path).rollback() == Switch(newest, made[1]), "and not what was gone back from before"


def test_of_the_refused_ones_the_newest_is_kept(tmp_path: Path) -> None:
    made = filled(tmp_path, 3)
    refused = [refuse(tmp_path, number) for number in (8, 9)]
    assert Shelf(tmp_path).sweep() == refused[:1]
    assert release.versions(tmp_path) == [*made, refused[1]]
    assert serving(tmp_path) == made[2]


def test_a_refused_release_is_no_step_back(tmp_path: Path) -> None:
    one, _, three = publish(tmp_path, 1), refuse(tmp_path, 2), publish(tmp_path, 3)
    (tmp_path / NOTES).unlink()
    assert Shelf(tmp_path).served == [one, three]


@pytest.mark.parametrize("target", [None, "gone", "backup"])
def test_without_a_valid_current_nothing_is_removed(tmp_path: Path, target: str | None) -> None:
    made = filled(tmp_path, 3)
    refused = [refuse(tmp_path, number) for number in (8, 9)]
    (tmp_path / CURRENT).unlink()
    if target is not None:
        (tmp_path / CURRENT).symlink_to(target)
    assert Shelf(tmp_path).sweep() == []
    assert release.versions(tmp_path) == [*made, *refused]


def test_what_a_killed_run_left_half_written_is_removed_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    version = publish(tmp_path, 1)
    nobody, somebody, half = tmp_path / ".run.999999999.tmp", tmp_path / ".run.1.tmp", tmp_path / "r0009-00000009"
    for folder in (nobody, somebody, half, tmp_path / "backup"):
        folder.mkdir()
        (folder / ONNX).write_bytes(b"x")
    Shelf(tmp_path).sweep()
    assert sorted(path.name for path in tmp_path.iterdir()) == [somebody.name, "backup", CURRENT, version, NOTES]


# --- back and forth ----------------------------------------------------------------------------------------------------------


def test_steps_back_and_forth(tmp_path: Path) -> None:
    one, two, three = filled(tmp_path, 3)
    shelves = Shelf(tmp_path)
    assert shelves.rollback() == Switch(three, two)
    assert shelves.rollback() == Switch(two, one)
    with pytest.raises(UsageError, match=r"cannot go back 1 step: of what served before, there is none"):
        shelves.rollback()
    assert shelves.promote(three) == Switch(one, three)
    assert serving(tmp_path) == three
    assert shelves.rollback() == Switch(three, one), "what served before it"


def test_two_steps_at_once(tmp_path: Path) -> None:
    one, _, three = filled(tmp_path, 3)
    with pytest.raises(UsageError, match="cannot go back 3 steps: of what served before, only 2 of them is whole"):
        Shelf(tmp_path).rollback(3)
    assert serving(tmp_path) == three
    assert Shelf(tmp_path).rollback(2) == Switch(three, one)


def test_a_broken_release_is_passed_over(tmp_path: Path) -> None:
    one, two, three = filled(tmp_path, 3)
    tear(tmp_path, two)
    assert Shelf(tmp_path).rollback() == Switch(three, one)


def test_a_refused_release_can_be_promoted_by_hand(tmp_path: Path) -> None:
    one = publish(tmp_path, 1)
    refused = refuse(tmp_path, 2)
    assert Shelf(tmp_path).promote(refused) == Switch(one, refused)
    assert Shelf(tmp_path).rollback() == Switch(refused, one)


def test_a_broken_release_cannot_be_promoted(tmp_path: Path) -> None:
    one, two = filled(tmp_path, 2)
    tear(tmp_path, one)
    with pytest.raises(AgentError, match=rf"^{one} is broken and cannot serve: .*has 4 bytes") as caught:
        Shelf(tmp_path).promote(one)
    assert caught.value.code is ErrorCode.VERIFY_FAILED
    assert serving(tmp_path) == two


@pytest.mark.parametrize("name", ["", "r", "r0009", "../x", "current", "/etc", "\0"])
def test_only_a_release_can_be_promoted(tmp_path: Path, name: str) -> None:
    one, two = filled(tmp_path, 2)
    with pytest.raises(UsageError, match=f"there are: {one}, {two}"):
        Shelf(tmp_path).promote(name)


def test_a_release_is_found_by_the_beginning_of_its_name(tmp_path: Path) -> None:
    one, _ = filled(tmp_path, 2)
    assert Shelf(tmp_path).find("r0001") == one
    with pytest.raises(UsageError, match="more than one release"):
        Shelf(tmp_path).find("r000")


@pytest.mark.parametrize("act", [Shelf.rollback, lambda shelves: shelves.promote("r0001")])
def test_where_there_are_no_releases_there_is_nothing_to_do(tmp_path: Path, act: Callable[[Shelf], Switch]) -> None:
    with pytest.raises(UsageError, match="holds no releases"):
        act(Shelf(tmp_path / "missing"))


def test_the_same_request_is_done_once(tmp_path: Path) -> None:
    one, two, three = filled(tmp_path, 3)
    shelves = Shelf(tmp_path)
    assert shelves.rollback(by="rollback/1") == shelves.rollback(by="rollback/1") == Switch(three, two, "rollback/1")
    assert serving(tmp_path) == two
    assert shelves.rollback(by="rollback/2").after == one
    assert shelves.promote(three, by="promote/1").after == three
    assert shelves.promote(three, by="promote/1").before == one


# --- verify ------------------------------------------------------------------------------------------------------------------


def test_a_whole_release_goes_on_serving(tmp_path: Path) -> None:
    _, two = filled(tmp_path, 2)
    assert Shelf(tmp_path).check() is None
    assert serving(tmp_path) == two
    assert Shelf(tmp_path).fall is None


def lose(models: Path, version: str) -> None:
    (models / version / ONNX).unlink()


def scribble(models: Path, version: str) -> None:
    (models / version / ONNX).write_bytes(b"model X")


def lose_manifest(models: Path, version: str) -> None:
    (models / version / MANIFEST).unlink()


@pytest.mark.parametrize("damage", [tear, lose, scribble, lose_manifest])
def test_the_release_before_takes_the_place_of_a_broken_one(tmp_path: Path, damage: Callable[[Path, str], None]) -> None:
    one, two, three = filled(tmp_path, 3)
    damage(tmp_path, three)
    fall = Shelf(tmp_path).check()
    assert fall is not None
    assert fall.after == two == serving(tmp_path)
    assert fall.flaw
    assert Shelf(tmp_path).check() is None, "it is told once"
    assert Shelf(tmp_path).fall == fall, "and known until somebody decides anew"
    tear(tmp_path, two)
    again = Shelf(tmp_path).check()
    assert again is not None
    assert again.after == one
    publish(tmp_path, 4)
    assert Shelf(tmp_path).fall is None


@pytest.mark.parametrize("target", [None, "gone"])
def test_a_current_that_points_nowhere_is_mended(tmp_path: Path, target: str | None) -> None:
    _, two = filled(tmp_path, 2)
    (tmp_path / CURRENT).unlink()
    if target is not None:
        (tmp_path / CURRENT).symlink_to(target)
    assert Shelf(tmp_path).check() == Fall("current", f"{tmp_path / CURRENT} points at no release", two)
    assert serving(tmp_path) == two


def test_a_current_that_points_nowhere_is_mended_without_notes_too(tmp_path: Path) -> None:
    one = publish(tmp_path, 1)
    refuse(tmp_path, 2)
    (tmp_path / NOTES).unlink()
    (tmp_path / CURRENT).unlink()
    (tmp_path / CURRENT).symlink_to("gone")
    fall = Shelf(tmp_path).check()
    assert fall is not None
    assert fall.after == one == serving(tmp_path)


def test_where_nothing_is_whole_nothing_is_changed(tmp_path: Path) -> None:
    one, two = filled(tmp_path, 2)
    refuse(tmp_path, 3)
    for version in (one, two):
        tear(tmp_path, version)
    with pytest.raises(AgentError, match=rf"no release is whole that could serve: .*{two}.* has 4 bytes") as caught:
        Shelf(tmp_path).check()
    assert caught.value.code is ErrorCode.VERIFY_FAILED
    assert serving(tmp_path) == two


def test_where_nothing_was_ever_deployed_nothing_is_wrong(tmp_path: Path) -> None:
    assert Shelf(tmp_path / "missing").check() is None
    refuse(tmp_path, 1)
    assert Shelf(tmp_path).check() is None
    assert not (tmp_path / CURRENT).exists()


@pytest.mark.parametrize("content", [*NASTY_JSON.values(), b"", b'{"served": 5}', b'{"served": ["../../etc", "r0001-ffffffff"]}'])
def test_notes_that_cannot_be_read_cost_nothing_but_the_order(tmp_path: Path, content: bytes) -> None:
    made = filled(tmp_path, 3)
    (tmp_path / NOTES).write_bytes(content)
    assert Shelf(tmp_path).served == made
    assert Shelf(tmp_path).rollback().after == made[1]


# --- a crash at any moment ---------------------------------------------------------------------------------------------------


class Crash(BaseException):
    """The power goes."""


ACTIONS: dict[str, Callable[[Path], object]] = {
    "publish": lambda models: publish(models, 9),
    "rollback": lambda models: Shelf(models).rollback(by="me"),
    "promote": lambda models: Shelf(models).promote("r0001", by="me"),
    "check": lambda models: Shelf(models).check(),
}


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("moment", range(5))
def test_whenever_it_crashes_something_whole_serves_and_doing_it_again_ends_the_same(
    tmp_path: Path, action: str, moment: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare(models: Path) -> Path:
        made = filled(models, 3)
        if action == "check":
            tear(models, made[2])
        return models

    undisturbed, models = prepare(tmp_path / "undisturbed"), prepare(tmp_path / "models")
    ACTIONS[action](undisturbed)
    left = moment

    def crashing(real: Callable[..., None]) -> Callable[..., None]:
        def step(*arguments: object) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise Crash
            real(*arguments)

        return step

    with monkeypatch.context() as patch:
        for name in ("write_bytes", "point_link", "remove_tree", "sync_folder"):
            patch.setattr(shelf.atomic, name, crashing(getattr(atomic, name)))
        try:
            ACTIONS[action](models)
        except Crash:
            assert release.current(models) is not None
    atomic.remove_tree(models / ".new")
    ACTIONS[action](models)
    assert serving(models) == serving(undisturbed)
    assert Shelf(models).served == Shelf(undisturbed).served
    assert (Shelf(models).fall is None) is (Shelf(undisturbed).fall is None)
    assert release.flaw(models / serving(models)) == ""


@given(st.lists(st.tuples(st.sampled_from(["publish", "refuse", "rollback", "promote", "tear", "check"]), st.integers(0, 6))))
def test_whatever_happens_what_serves_is_there_and_steps_back_are_real(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    models = tmp_path_factory.mktemp("models")
    shelves = Shelf(models)
    ever: list[str] = []
    for number, (what, choice) in enumerate(steps):
        known = release.versions(models)
        try:
            if what == "publish":
                publish(models, number)
            elif what == "refuse":
                refuse(models, number)
            elif what == "rollback":
                shelves.rollback(1 + choice % 2)
            elif what == "promote" and known:
                shelves.promote(known[choice % len(known)])
            elif what == "tear" and known:
                tear(models, known[choice % len(known)])
            elif what == "check":
                shelves.check()
        except AgentError:
            pass
        if shelves.serving is not None:
            ever.append(shelves.serving)
            assert shelves.served[-1] == shelves.serving
        assert set(shelves.served) <= set(ever), "nothing counts as a step back that never served"
        assert len(set(shelves.served)) == len(shelves.served)
        if what == "check" and shelves.serving is not None and any(not release.flaw(models / each) for each in shelves.served):
            assert release.flaw(models / shelves.serving) == ""


def test_notes_are_json_that_says_what_served(tmp_path: Path) -> None:
    made = filled(tmp_path, 2)
    assert msgspec.json.decode((tmp_path / NOTES).read_bytes()) == {"served": made}
