from __future__ import annotations

from pathlib import Path

import pytest

from reconvene_agent.core import profile
from reconvene_agent.core.budget import BudgetLimits
from reconvene_agent.core.device import Device, Memory, Storage
from reconvene_agent.core.errors import ErrorCode, UsageError
from reconvene_agent.core.profile import Compute, Match, Profile, Thermal

SHIPPED = Path(__file__).resolve().parents[2] / "device_profiles"


def device(*compatible: str, model: str = "Some Board", architecture: str = "aarch64") -> Device:
    return Device(
        model=model,
        compatible=compatible,
        architecture=architecture,
        cpu="",
        cores=4,
        memory=Memory(1024.0, 512.0, 0.0),
        storage=Storage("/", 1.0, 1.0),
        temperature_c=None,
        power=None,
        clock_synchronized=True,
        os="",
        kernel="",
    )


def matching(
    name: str, *, compatible: tuple[str, ...] = (), model: tuple[str, ...] = (), architecture: str = "aarch64"
) -> Profile:
    return Profile(
        name=name,
        title=name,
        match=Match(architecture, compatible, model),
        compute=Compute(0, 0, ("CPUExecutionProvider",)),
        thermal=Thermal(80.0, 70.0),
        batch_cap=32,
    )


def text(name: str, hot_c: float = 80.0, cool_c: float = 70.0, more: str = "") -> str:
    return f"""
name = "{name}"
title = "A board"
batch_cap = 32
[match]
architecture = "aarch64"
[compute]
inference_threads = 0
training_threads = 0
providers = ["CPUExecutionProvider"]
[thermal]
hot_c = {hot_c}
cool_c = {cool_c}
{more}
"""


GENERIC = matching("generic")
BY_MODEL = matching("by-model", model=("Board",))
BY_LONGER_MODEL = matching("by-longer-model", model=("Some Board",))
BY_CHIP = matching("by-chip", compatible=("maker,chip",))
BY_BOARD = matching("by-board", compatible=("maker,board",))
OTHER = matching("other", compatible=("other,board",), model=("Other",), architecture="aarch64")
PC = matching("pc", architecture="x86_64")
ALL = [GENERIC, BY_MODEL, BY_LONGER_MODEL, BY_CHIP, BY_BOARD, OTHER, PC]


def chosen(board: Device, *candidates: Profile) -> str:
    return profile.choose({candidate.name: candidate for candidate in candidates}, board).name


@pytest.mark.parametrize("turn", [1, -1])
@pytest.mark.parametrize(
    ("board", "name"),
    [
        (device("maker,board", "maker,chip"), "by-board"),
        (device("maker,unheard-of", "maker,chip"), "by-chip"),
        (device("maker,unheard-of"), "by-longer-model"),
        (device(model="Brand New Board"), "by-model"),
        (device(model="Contraption"), "generic"),
        (device("maker,board", architecture="x86_64"), "pc"),
    ],
)
def test_the_most_specific_profile_is_chosen_whatever_the_order(board: Device, name: str, turn: int) -> None:
    assert chosen(board, *ALL[::turn]) == name


def test_ranks_of_the_ways_to_fit() -> None:
    board = device("maker,board", "maker,chip")
    ways = [PC, GENERIC, BY_MODEL, BY_LONGER_MODEL, BY_CHIP, BY_BOARD]
    ranks = [profile.fit(candidate, board) for candidate in ways]
    assert ranks == sorted(set(ranks))
    assert ranks[0] == (0, 0)


def test_the_architecture_must_fit_whatever_else_does() -> None:
    assert profile.fit(BY_BOARD, device("maker,board", architecture="armv7l")) == (0, 0)


def test_a_profile_for_other_boards_does_not_fit_by_architecture() -> None:
    assert profile.fit(OTHER, device()) == (0, 0)


def test_the_best_of_several_entries_counts() -> None:
    both = matching("both", compatible=("maker,chip", "maker,board"))
    board = device("maker,board", "maker,chip")
    assert profile.fit(both, board) == profile.fit(BY_BOARD, board)


def test_a_profile_asked_for_by_name_need_not_fit() -> None:
    assert profile.choose({"other": OTHER, "generic": GENERIC}, device(), "other") is OTHER


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(UsageError, match=r"'nope'.*generic, other"):
        profile.choose({"other": OTHER, "generic": GENERIC}, device(), "nope")


@pytest.mark.parametrize("candidates", [[], [PC], [OTHER]])
def test_nothing_fits(candidates: list[Profile]) -> None:
    with pytest.raises(UsageError, match="no profile fits this aarch64 board"):
        chosen(device(), *candidates)


def test_a_profile_is_read(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(text("mine", more="[budget]\nlatency_ms = 5.0\nmemory_share = 0.5\n"))
    read = profile.read(tmp_path / "mine.toml")
    assert read.thermal == Thermal(80.0, 70.0)
    assert read.budget == BudgetLimits(latency_ms=5.0, memory_share=0.5)


def test_the_budget_may_be_left_out(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(text("mine"))
    assert profile.read(tmp_path / "mine.toml").budget == BudgetLimits()


def test_the_multiple_of_widths_may_be_left_out(tmp_path: Path) -> None:
    path = tmp_path / "ours.toml"
    path.write_text(text("ours"))
    assert profile.read(path).compute.width_multiple == 1
    path.write_text(text("ours").replace("[thermal]", "width_multiple = 8\n[thermal]"))
    assert profile.read(path).compute.width_multiple == 8


@pytest.mark.parametrize("multiple", [0, -8, 257, "8.5", '"8"'])
def test_a_multiple_of_widths_that_is_none(tmp_path: Path, multiple: object) -> None:
    path = tmp_path / "ours.toml"
    path.write_text(text("ours").replace("[thermal]", f"width_multiple = {multiple}\n[thermal]"))
    with pytest.raises(UsageError, match=r"ours\.toml: not a valid profile: compute\.width_multiple: Expected "):
        profile.read(path)


def test_the_file_must_be_named_after_the_profile(tmp_path: Path) -> None:
    (tmp_path / "yours.toml").write_text(text("mine"))
    with pytest.raises(UsageError, match=r"calls itself 'mine'; name the file mine\.toml"):
        profile.read(tmp_path / "yours.toml")


BROKEN = {
    "no TOML": b"name = ",
    "no text": b"name = '\xff'",
    "nothing": b"",
    "as cool as hot": text("mine", 70.0, 70.0).encode(),
    "cooler when hot": text("mine", 60.0, 70.0).encode(),
    "unknown setting": text("mine", more="fan = true").encode(),
    "unknown section": text("mine", more="[fan]\nspeed = 1").encode(),
    "no providers": text("mine").replace('["CPUExecutionProvider"]', "[]").encode(),
    "negative threads": text("mine").replace("training_threads = 0", "training_threads = -1").encode(),
    "batch of one": text("mine").replace("batch_cap = 32", "batch_cap = 1").encode(),
    "share above one": text("mine", more="[budget]\nmemory_share = 1.5").encode(),
    "no latency at all": text("mine", more="[budget]\nlatency_ms = 0.0").encode(),
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_profile_names_its_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"mine\.toml: not a valid profile") as caught:
        profile.read(path)
    assert caught.value.code is ErrorCode.SCHEMA
    assert caught.value.__cause__ is not None


def test_the_message_says_what_is_wrong_with_the_temperatures(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(text("mine", 60.0, 70.0))
    with pytest.raises(UsageError, match=r"cool_c 70\.0 must be below hot_c 60\.0"):
        profile.read(tmp_path / "mine.toml")


def test_a_profile_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").mkdir()
    with pytest.raises(UsageError, match="not a valid profile"):
        profile.load_all([tmp_path])


def test_the_first_folder_that_has_a_name_wins(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder, hot_c in ((first, 90.0), (second, 80.0)):
        folder.mkdir()
        (folder / "mine.toml").write_text(text("mine", hot_c))
    (second / "yours.toml").write_text(text("yours"))
    (second / "notes.txt").write_text("not a profile")
    loaded = profile.load_all([first, tmp_path / "missing", second])
    assert {name: found.thermal.hot_c for name, found in loaded.items()} == {"mine": 90.0, "yours": 80.0}


def test_a_hidden_profile_may_be_broken(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder, content in ((first, text("mine")), (second, "broken")):
        folder.mkdir()
        (folder / "mine.toml").write_text(content)
    assert profile.load_all([first, second]).keys() == {"mine"}


def test_the_users_own_folder_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "raspberry-pi-5.toml").write_text(text("raspberry-pi-5", 91.0))
    monkeypatch.setenv(profile.PROFILES_VARIABLE, str(tmp_path))
    monkeypatch.setattr(profile, "SYSTEM_PROFILES", tmp_path / "no-such-system-folder")
    assert profile.search_path()[0] == tmp_path
    loaded = profile.load_all()
    assert loaded["raspberry-pi-5"].thermal.hot_c == 91.0
    assert len(loaded) > 1


def test_the_systems_folder_comes_before_what_ships(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "raspberry-pi-5.toml").write_text(text("raspberry-pi-5", 92.0))
    monkeypatch.delenv(profile.PROFILES_VARIABLE, raising=False)
    monkeypatch.setattr(profile, "SYSTEM_PROFILES", tmp_path)
    assert profile.load_all()["raspberry-pi-5"].thermal.hot_c == 92.0


@pytest.fixture(scope="module")
def shipped() -> dict[str, Profile]:
    return profile.load_all([SHIPPED])


def test_what_ships(shipped: dict[str, Profile]) -> None:
    assert shipped.keys() == {
        "raspberry-pi-zero-2-w",
        "raspberry-pi-3b-plus",
        "raspberry-pi-4b",
        "raspberry-pi-5",
        "jetson-nano",
        "jetson-xavier-nx",
        "jetson-orin-nano",
        "jetson-agx-orin",
        "generic-aarch64",
        "generic-x86_64",
    }


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.toml")), ids=lambda path: path.stem)
def test_each_shipped_profile_is_complete_and_says_why(path: Path) -> None:
    assert path.read_text().startswith("# ")
    read = profile.read(path)
    budget = read.budget
    for limit in (budget.latency_ms, budget.memory_share, budget.training_memory_share):
        assert isinstance(limit, float)
        assert limit > 0.0
    assert isinstance(budget.memory_share, float)
    assert isinstance(budget.training_memory_share, float)
    assert budget.memory_share <= budget.training_memory_share <= 0.6, "room must be left for the system and the libraries"
    assert read.compute.providers[-1] == "CPUExecutionProvider", "there must be a way to compute without an accelerator"
    assert 60.0 <= read.thermal.cool_c <= read.thermal.hot_c - 5.0
    assert read.thermal.hot_c <= 90.0


def test_no_two_shipped_profiles_claim_one_board(shipped: dict[str, Profile]) -> None:
    claims = [
        (found.match.architecture, entry) for found in shipped.values() for entry in found.match.compatible + found.match.model
    ]
    assert len(claims) == len(set(claims))


@pytest.mark.parametrize(
    ("model", "compatible", "name"),
    [
        ("Raspberry Pi 3 Model A Plus Rev 1.0", "raspberrypi,3-model-a-plus brcm,bcm2837", "raspberry-pi-zero-2-w"),
        ("Raspberry Pi 3 Model B Rev 1.2", "raspberrypi,3-model-b brcm,bcm2837", "raspberry-pi-3b-plus"),
        ("Raspberry Pi 400 Rev 1.0", "raspberrypi,400 brcm,bcm2711", "raspberry-pi-4b"),
        ("Raspberry Pi Compute Module 4 Rev 1.1", "raspberrypi,4-compute-module brcm,bcm2711", "raspberry-pi-4b"),
        ("Somebody's CM4 carrier", "somebody,carrier brcm,bcm2711", "raspberry-pi-4b"),
        ("Raspberry Pi 500", "raspberrypi,500 brcm,bcm2712", "raspberry-pi-5"),
        ("Raspberry Pi Compute Module 5 Rev 1.0", "raspberrypi,5-compute-module brcm,bcm2712", "raspberry-pi-5"),
        ("NVIDIA Jetson Nano Developer Kit", "nvidia,p3450-0000 nvidia,tegra210", "jetson-nano"),
        (
            "NVIDIA Jetson Nano 2GB Developer Kit",
            "nvidia,p3542-0000+p3448-0003 nvidia,jetson-nano nvidia,tegra210",
            "jetson-nano",
        ),
        ("NVIDIA Jetson Nano 2GB Developer Kit", "nvidia,p3541-0000 nvidia,p3450-0000 nvidia,tegra210", "jetson-nano"),
        ("NVIDIA Jetson Xavier NX Developer Kit (eMMC)", "nvidia,p3509-0000+p3668-0001 nvidia,tegra194", "jetson-xavier-nx"),
        ("NVIDIA Jetson AGX Xavier Developer Kit", "nvidia,p2972-0000 nvidia,tegra194", "jetson-xavier-nx"),
        ("NVIDIA Orin Nano Developer Kit", "nvidia,p3768-0000+p3767-0005 nvidia,p3767-0005 nvidia,tegra234", "jetson-orin-nano"),
        (
            "NVIDIA Jetson Orin NX Developer Kit",
            "nvidia,p3768-0000+p3767-0000 nvidia,p3767-0000 nvidia,tegra234",
            "jetson-orin-nano",
        ),
        ("Somebody's Orin Nano carrier", "somebody,carrier nvidia,p3767-0005 nvidia,tegra234", "jetson-orin-nano"),
        ("Somebody's Jetson AGX Orin box", "somebody,box nvidia,tegra234", "jetson-agx-orin"),
        ("NVIDIA Jetson AGX Orin", "nvidia,p3737-0000+p3701-0000 nvidia,p3701-0000 nvidia,tegra234", "jetson-agx-orin"),
        ("Orange Pi 5", "xunlong,orangepi-5 rockchip,rk3588s", "generic-aarch64"),
    ],
)
def test_relatives_of_the_shipped_boards(shipped: dict[str, Profile], model: str, compatible: str, name: str) -> None:
    assert profile.choose(shipped, device(*compatible.split(), model=model)).name == name


def test_a_32_bit_system_has_no_profile(shipped: dict[str, Profile]) -> None:
    with pytest.raises(UsageError, match="armv7l"):
        profile.choose(shipped, device("raspberrypi,4-model-b", architecture="armv7l"))
