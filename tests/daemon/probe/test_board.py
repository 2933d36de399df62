from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from reconvene_agent.core.kernel import devicetree
from reconvene_agent.daemon.probe import board

TREE = "sys/firmware/devicetree/base"
DMI = "sys/class/dmi/id"


@pytest.mark.parametrize("tree", [TREE, "proc/device-tree"])
def test_names_from_a_device_tree(plant: Callable[..., Path], tree: str) -> None:
    root = plant({f"{tree}/model": b"Board X\0", f"{tree}/compatible": b"maker,board-x\0maker,chip\0"})
    assert board.model(root) == "Board X"
    assert devicetree.compatible(root) == ("maker,board-x", "maker,chip")


def test_a_pc_is_named_by_its_firmware(plant: Callable[..., Path]) -> None:
    root = plant({f"{DMI}/product_name": "NUC\n", f"{DMI}/board_name": "NUC-B\n"})
    assert board.model(root) == "NUC"
    assert devicetree.compatible(root) == ()


@pytest.mark.parametrize("placeholder", ["To Be Filled By O.E.M.\n", "Default string\n", "System Product Name\n", "\n", ""])
def test_placeholders_are_no_name(plant: Callable[..., Path], placeholder: str) -> None:
    assert board.model(plant({f"{DMI}/product_name": placeholder, f"{DMI}/board_name": "B450M\n"})) == "B450M"
    assert board.model(plant({f"{DMI}/product_name": placeholder, f"{DMI}/board_name": placeholder})) == "unknown"


def test_nothing_told_is_unknown(plant: Callable[..., Path]) -> None:
    root = plant({})
    assert (board.model(root), devicetree.compatible(root), board.os_name(root)) == ("unknown", (), "unknown")


@pytest.mark.parametrize("content", [b"", b"\0", b"\0\0\0", b"\n"])
def test_an_empty_compatible_list_has_no_entries(plant: Callable[..., Path], content: bytes) -> None:
    assert devicetree.compatible(plant({f"{TREE}/compatible": content})) == ()


def test_architecture_of_a_copied_tree_and_of_this_machine(plant: Callable[..., Path]) -> None:
    assert board.architecture(plant({"proc/sys/kernel/arch": "riscv64\n"})) == "riscv64"
    assert board.architecture(Path("/")) == os.uname().machine


def test_this_machine_is_asked_for_its_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine="asked"))
    assert board.architecture(Path("/")) == "asked"


def test_architecture_falls_back_on_this_machines(plant: Callable[..., Path]) -> None:
    assert board.architecture(plant({})) == os.uname().machine


def test_kernel(plant: Callable[..., Path]) -> None:
    assert board.kernel(plant({"proc/sys/kernel/osrelease": "6.6.51-v8\n"})) == "6.6.51-v8"
    assert board.kernel(Path("/")) == os.uname().release


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ('PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian GNU/Linux"\n', "Debian GNU/Linux 12 (bookworm)"),
        ("PRETTY_NAME='Single Quoted'\n", "Single Quoted"),
        ("PRETTY_NAME=Plain\n", "Plain"),
        ('# PRETTY_NAME="No"\nNAME="Yocto"\nVERSION_ID=4.0\n', "Yocto 4.0"),
        ('PRETTY_NAME=""\nNAME=Alpine\n', "Alpine"),
        (r'PRETTY_NAME="A \"B\" \$C"', 'A "B" $C'),
        ('PRETTY_NAME="', '"'),
        ("ID=debian\n", "unknown"),
        (b"\xff\0\xfe", "unknown"),
    ],
)
def test_operating_system(plant: Callable[..., Path], content: str | bytes, name: str) -> None:
    assert board.os_name(plant({"etc/os-release": content})) == name


def test_operating_system_without_etc(plant: Callable[..., Path]) -> None:
    assert board.os_name(plant({"usr/lib/os-release": "PRETTY_NAME=Vendor\n"})) == "Vendor"
