"""What the installer says and refuses before it changes anything."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from support.installing import CHECKOUT, WORKER, Board, installer

REFUSED = {
    ("fly",): "there is no 'fly'",
    ("--purge",): "'service' does not know --purge",
    ("uninstall", "--offline", "/tmp"): "'uninstall' does not know --offline",
    ("--config", "/nowhere.toml"): "/nowhere.toml cannot be read",
    ("--broker", 'mqtt://a"b'): "--broker wants a plain text without blanks, quotes and backslashes",
    ("--offline", "/nowhere"): "/nowhere is no folder",
    ("--prefix", "relative"): "--prefix wants an absolute path, and not /",
    ("--prefix", "/"): "--prefix wants an absolute path, and not /",
    ("--prefix", "/usr"): "/usr holds something else; choose another folder with --prefix",
    ("--wait", "soon"): "--wait wants a number of seconds",
    ("--worker-python", "/bin/true"): "/bin/true is no Python 3.10 to 3.13",
    ("bundle-wheels", "--arch", "armv7l", "--python", "3.11", "x"): "--arch wants aarch64 or x86_64",
    ("bundle-wheels", "--arch", "aarch64", "--python", "3.9", "x"): "--python wants 3.10, 3.11, 3.12 or 3.13",
    ("--config", ""): "--config wants a value",
    ("bundle-wheels", "--arch", "aarch64", "--python", "3.11"): (
        "name the folder: ./install.sh bundle-wheels --arch aarch64 --python 3.11 DIR"
    ),
}


@pytest.mark.parametrize(
    ("words", "complaint"), REFUSED.items(), ids=lambda what: " ".join(what) if isinstance(what, tuple) else ""
)
def test_what_is_refused(words: tuple[str, ...], complaint: str) -> None:
    done = installer(*words, "--dry-run")  # what is not refused after all must not be done to this machine
    assert (done.code, done.err.splitlines()[-1]) == (1, f"install.sh: error: {complaint}")


def test_help_names_every_action() -> None:
    done = installer("help")
    for action in ("demo", "test", "dev", "upgrade", "uninstall", "bundle-wheels"):
        assert f"./install.sh {action} " in done.out


def files(*folders: str) -> dict[str, tuple[int, float]]:
    """Return size and time of change of all below some folders."""
    found = (path for folder in folders for path in Path(folder).rglob("*"))
    return {str(path): (path.lstat().st_size, path.lstat().st_ctime) for path in found}


@pytest.mark.parametrize("words", [("--broker", "mqtts://b:8883", "--worker-python", WORKER), ("uninstall", "--purge")], ids=str)
def test_a_dry_run_changes_nothing(words: tuple[str, ...]) -> None:
    before = files("/etc", "/opt/reconvene-agent", "/usr/local/bin")
    done = installer("--dry-run" if words[0].startswith("-") else words[0], *words[words[0] == "uninstall" :], "--dry-run")
    assert done.code == 0, done
    assert files("/etc", "/opt/reconvene-agent", "/usr/local/bin") == before


def test_a_dry_run_tells_every_step(tmp_path: Path) -> None:
    done = installer("--dry-run", "--broker", "mqtts://b:8883", "--prefix", tmp_path)
    assert done.code == 0, done
    steps = [
        "-m venv ",
        f"would install torch=={'2.13.0+cpu' if os.uname().machine == 'x86_64' else '2.9.1'} (CPU build)",
        "[worker,signing]",
        "-m compileall ",
        "adding the system user reconvene-agent",
        "would check that ",
        "would write /etc/reconvene-agent/config.toml",
        "with broker.url mqtts://b:8883",
        "reconvene-agent.service /etc/systemd/system/",
        "would run: ln -sfn versions/",
        "would run: mv -T ",
        "would run: ln -sfn /",
        "systemctl enable",
    ]
    where = [done.err.find(step) for step in steps]
    assert -1 not in where, done.err
    assert where == sorted(where)
    assert list(tmp_path.iterdir()) == []


def test_all_that_a_machine_lacks_is_told_at_once(tmp_path: Path) -> None:
    for name, text in {"uname": "armv7l", "df": "-\n/dev/x 1 1 2048 1% /"}.items():
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\n[ "$1" = -s ] && echo Linux || printf "%s\\n" "{text}"\n')
        program.chmod(0o755)
    done = installer("--dry-run", "--prefix", tmp_path / "prefix", PATH=f"{tmp_path}:/usr/sbin:/usr/bin:/sbin:/bin")
    assert done.code == 1
    assert "a 64-bit system: there is no PyTorch for armv7l" in done.err
    assert "2500 MiB of free disk at " in done.err
    assert "; there are 2 MiB" in done.err


def test_every_piece_of_the_service_has_its_place_and_the_unit_runs_what_serves() -> None:
    done = installer("--dry-run")
    for piece in (CHECKOUT / "systemd").iterdir():
        if piece.name not in ("lib", "config.toml", "jetson.conf"):
            assert f"would run: put {piece} /etc/" in done.err
    unit = (CHECKOUT / "systemd/reconvene-agent.service").read_text()
    assert "\nExecStart=/opt/reconvene-agent/current/bin/python -m reconvene_agent.daemon " in unit


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("[broker]\n# url = 'x'\n", '[broker]\nurl = "mqtt://b"\n'),
        ('[broker]\nurl = "mqtt://a"\nroot = "te"\n', '[broker]\nurl = "mqtt://b"\nroot = "te"\n'),
        ('[agent]\nurl = "no"\n[broker]\nroot = "te"\n', '[agent]\nurl = "no"\n[broker]\nroot = "te"\nurl = "mqtt://b"\n'),
        ("[broker]\n\n[agent]\n", '[broker]\n\nurl = "mqtt://b"\n[agent]\n'),
        ("", '\n[broker]\nurl = "mqtt://b"\n'),
    ],
)
def test_a_setting_is_put_into_its_section(tmp_path: Path, before: str, after: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(before)
    use = f"with_setting {file} broker url mqtt://b >{file}.new; setting {file}.new broker url"
    script = f". {CHECKOUT}/systemd/lib/settings.sh; {use}"
    done = subprocess.run(["sh", "-euc", script], capture_output=True, text=True, check=True)
    assert (tmp_path / "config.toml.new").read_text() == after
    assert done.stdout == "mqtt://b\n"


def test_a_jetson_whose_torch_is_used_and_one_that_has_none(board: Board) -> None:
    board.guest.run("touch", "/etc/nv_tegra_release")
    try:
        without = board.guest.run(CHECKOUT / "install.sh", "--dry-run")
        site = board.guest.run(WORKER, "-c", "import torch; print(torch.__file__.rsplit('/', 2)[0])").out
        board.guest.run("sh", "-c", f"echo {site.strip()} >/usr/lib/python3/dist-packages/torch.pth")
        with_torch = board.guest.run(CHECKOUT / "install.sh", "--dry-run")
    finally:
        board.guest.run("rm", "-f", "/etc/nv_tegra_release", "/usr/lib/python3/dist-packages/torch.pth")
    assert "a Jetson, but /usr/bin/python3 has no torch that can be used" in without.err
    assert "would install torch==" in without.err
    assert "a Jetson whose own torch is " in with_torch.err
    assert "would install torch==" not in with_torch.err
    assert "with worker.python /opt/reconvene-agent/current/worker/bin/python" in with_torch.err


@pytest.mark.long
@pytest.mark.timeout(400)
def test_wheels_for_another_architecture_and_an_older_python(tmp_path: Path) -> None:
    done = installer("bundle-wheels", "--arch", "aarch64", "--python", "3.10", "--without-torch", tmp_path / "out", seconds=300)
    assert done.code == 0, done
    names = [wheel.name for wheel in (tmp_path / "out").glob("*.whl")]
    assert any(name.startswith("tomli-2") for name in names), "Python 3.10 needs it, whatever Python fetched it"
    assert all("aarch64" in name or "none-any" in name for name in names), names
    assert any(name.startswith("msgspec-") and "-cp310-" in name for name in names)
