from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconvene_agent.core import profile
from reconvene_agent.core.device import Device, Power
from reconvene_agent.daemon.probe.device import probe_device

SERVICE = "system.slice/reconvene-agent.service"


def told(flags: str) -> Power:
    """Return the flags, in their order in Power: ``+`` on, ``-`` off, ``?`` not told."""
    return Power(*({"+": True, "-": False, "?": None}[flag] for flag in flags))


# Per board: CPU, cores, memory in MiB (total, available), the file that limits it, degrees, power, clock, system.
BOARDS: dict[str, tuple[str, int, float, float, str | None, float, Power | None, bool, str]] = {
    "raspberry-pi-zero-2-w": ("Cortex-A53", 4, 417.4, 234.2, None, 49.388, told("----"), True, "Debian GNU/Linux 12 (bookworm)"),
    "raspberry-pi-3b-plus": ("Cortex-A53", 4, 922.1, 655.8, None, 62.832, told("-+-+"), True, "Debian GNU/Linux 11 (bullseye)"),
    "raspberry-pi-4b": (
        "Cortex-A72", 4, 1024.0, 874.0, f"/sys/fs/cgroup/{SERVICE}/memory.high",
        55.017, told("++++"), True, "Debian GNU/Linux 12 (bookworm)",
    ),
    "raspberry-pi-5": ("Cortex-A76", 3, 8062.3, 7383.3, None, 47.45, told("-???"), True, "Debian GNU/Linux 13 (trixie)"),
    "jetson-nano": ("Cortex-A57", 4, 3964.1, 2540.5, None, 41.5, None, False, "Ubuntu 18.04.6 LTS"),
    "jetson-xavier-nx": (
        "NVIDIA Carmel", 2, 3072.0, 2572.0, f"/sys/fs/cgroup/memory/{SERVICE}/memory.limit_in_bytes",
        44.0, told("??++"), True, "Ubuntu 18.04.6 LTS",
    ),
    "jetson-orin-nano": ("Cortex-A78AE", 6, 7619.2, 5491.3, None, 51.281, told("?--+"), True, "Ubuntu 22.04.5 LTS"),
    "jetson-agx-orin": (
        "Cortex-A78AE", 6, 8192.0, 7168.0, "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        99.125, told("?+++"), False, "Ubuntu 20.04.6 LTS",
    ),
    "generic-aarch64": ("Cortex-A55 + Cortex-A76", 8, 15838.5, 15059.0, None, 42.538, None, True, "Armbian 24.8.1 bookworm"),
    "generic-x86_64": (
        "11th Gen Intel(R) Core(TM) i5-1135G7 @ 2.40GHz", 8, 15787.7, 12706.2, None,
        52.0, None, True, "Debian GNU/Linux 12 (bookworm)",
    ),
}  # fmt: skip

MODELS: dict[str, tuple[str, str]] = {
    "raspberry-pi-zero-2-w": ("Raspberry Pi Zero 2 W Rev 1.0", "raspberrypi,model-zero-2-w"),
    "raspberry-pi-3b-plus": ("Raspberry Pi 3 Model B Plus Rev 1.3", "raspberrypi,3-model-b-plus"),
    "raspberry-pi-4b": ("Raspberry Pi 4 Model B Rev 1.5", "raspberrypi,4-model-b"),
    "raspberry-pi-5": ("Raspberry Pi 5 Model B Rev 1.0", "raspberrypi,5-model-b"),
    "jetson-nano": ("NVIDIA Jetson Nano Developer Kit", "nvidia,p3449-0000-b00+p3448-0000-b00"),
    "jetson-xavier-nx": ("NVIDIA Jetson Xavier NX Developer Kit", "nvidia,p3449-0000+p3668-0000"),
    "jetson-orin-nano": (
        "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
        "nvidia,p3768-0000+p3767-0005-super",
    ),
    "jetson-agx-orin": ("NVIDIA Jetson AGX Orin Developer Kit", "nvidia,p3737-0000+p3701-0005"),
    "generic-aarch64": ("Radxa ROCK 5B", "radxa,rock-5b"),
    "generic-x86_64": ("NUC11TNHi5", ""),
}


def test_every_shipped_profile_has_a_board(boards: Path, shipped_profiles: Path) -> None:
    kept = {folder.name for folder in boards.iterdir()}
    assert set(BOARDS) == set(MODELS) == kept == {path.stem for path in shipped_profiles.glob("*.toml")}


@pytest.mark.parametrize("name", BOARDS)
def test_facts_of_a_board(boards: Path, tmp_path: Path, name: str) -> None:
    device = probe_device(tmp_path, boards / name)
    cpu, cores, total, available, limited_by, degrees, supply, synchronized, system = BOARDS[name]
    assert (device.cpu, device.cores, device.os, device.clock_synchronized) == (cpu, cores, system, synchronized)
    assert device.memory.total_mb == pytest.approx(total, abs=0.06)
    assert device.memory.available_mb == pytest.approx(available, abs=0.06)
    assert device.memory.limited_by == limited_by
    assert device.temperature_c == degrees
    assert device.power == supply
    assert device.storage.path == str(tmp_path)


@pytest.mark.parametrize("name", BOARDS)
def test_a_board_is_recognised(boards: Path, shipped_profiles: Path, tmp_path: Path, name: str) -> None:
    device = probe_device(tmp_path, boards / name)
    model, compatible = MODELS[name]
    assert device.model == model
    assert next(iter(device.compatible), "") == compatible
    assert device.architecture == ("x86_64" if name == "generic-x86_64" else "aarch64")
    assert profile.choose(profile.load_all([shipped_profiles]), device).name == name


@pytest.mark.parametrize("name", BOARDS)
def test_a_board_is_recognised_by_its_model_alone(boards: Path, shipped_profiles: Path, tmp_path: Path, name: str) -> None:
    root = tmp_path / "root"
    shutil.copytree(boards / name, root)
    (root / "sys/firmware/devicetree/base/compatible").unlink(missing_ok=True)
    device = probe_device(tmp_path, root)
    assert device.compatible == ()
    assert profile.choose(profile.load_all([shipped_profiles]), device).name == name


def test_this_machine_can_be_probed(tmp_path: Path) -> None:
    device = probe_device(tmp_path)
    assert device.cores >= 1
    assert 0.0 <= device.memory.available_mb <= device.memory.total_mb
    assert device.memory.total_mb > 0.0


def test_an_empty_root_is_a_board_that_tells_nothing(tmp_path: Path) -> None:
    device = probe_device(tmp_path, tmp_path)
    assert (device.model, device.compatible, device.cpu, device.cores, device.os) == ("unknown", (), "unknown", 1, "unknown")
    assert (device.temperature_c, device.power, device.clock_synchronized) == (None, None, False)
    assert device.memory.total_mb == 0.0


def test_folders_in_the_place_of_files_tell_nothing(boards: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    for path in (boards / "jetson-orin-nano").rglob("*"):
        if path.is_file():
            (root / path.relative_to(boards / "jetson-orin-nano")).mkdir(parents=True)
    device = probe_device(tmp_path, root)
    assert (device.model, device.cores, device.temperature_c, device.power) == ("unknown", 1, None, None)


@settings(derandomize=True, deadline=None, database=None, max_examples=60)
@given(data=st.data())
def test_no_damage_breaks_it(boards: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    board = boards / data.draw(st.sampled_from(sorted(BOARDS)))
    names = sorted(str(path.relative_to(board)) for path in board.rglob("*") if path.is_file())
    damage = st.one_of(st.binary(max_size=80), st.just(b"-1\n"), st.just(b"18446744073709551615\n"), st.just(b"1" * 4999))
    damaged = data.draw(st.dictionaries(st.sampled_from(names), damage, min_size=1, max_size=12))
    root = tmp_path_factory.mktemp("root") / "board"
    shutil.copytree(board, root)
    for name, content in damaged.items():
        (root / name).write_bytes(content)
    device = probe_device(root, root)
    assert 0.0 <= device.memory.available_mb <= device.memory.total_mb
    assert device.cores >= 1
    assert msgspec.json.decode(msgspec.json.encode(device), type=Device) == device


def test_probing_stays_light() -> None:
    code = (
        "import sys; from reconvene_agent.daemon.probe import device;"
        "print(sorted({'asyncio', 'ctypes', 'dataclasses', 'psutil', 'numpy', 'torch'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path)}
    )
    assert done.stdout.strip() == "[]"
