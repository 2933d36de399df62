"""``probe``: what this board is and how it fares."""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec

from reconvene_agent.cli.arguments import add_common
from reconvene_agent.cli.output import print_json
from reconvene_agent.core import config, profile
from reconvene_agent.core.device import Device
from reconvene_agent.daemon.probe.device import probe_device


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_common(parser)
    parser.add_argument("--root", type=Path, default=Path("/"), metavar="DIR", help="read /proc and /sys below DIR instead")


def run(arguments: argparse.Namespace) -> int:
    settings = config.load(arguments.config)
    device = probe_device(settings.state_dir, arguments.root)
    chosen = profile.choose(profile.load_all(), device, settings.agent.profile)
    if arguments.json:
        print_json({**msgspec.to_builtins(device), "profile": chosen.name})
    else:
        for name, value in _lines(device):
            print(f"{name:<14}{value}")
        print(f"{'profile':<14}{chosen.name} ({chosen.title})")
    return 0


def _lines(device: Device) -> list[tuple[str, str]]:
    memory, storage, power = device.memory, device.storage, device.power
    limit = f", limited by {memory.limited_by}" if memory.limited_by else ""
    flags = "not told by this board"
    if power is not None:
        now = [name for name, on in (("under-voltage", power.under_voltage), ("throttled", power.throttled)) if on]
        flags = " and ".join(now) if now else "good"
        if not now and (power.under_voltage_since_boot or power.throttled_since_boot):
            flags = "good now, but there was under-voltage or throttling since boot"
    return [
        ("board", device.model),
        ("processor", f"{device.cpu}, {device.architecture}, {device.cores} cores usable"),
        ("memory", f"{memory.available_mb:.0f} of {memory.total_mb:.0f} MiB available{limit}"),
        ("storage", f"{storage.free_mb:.0f} of {storage.total_mb:.0f} MiB free at {storage.path}"),
        ("temperature", "not told by this board" if device.temperature_c is None else f"{device.temperature_c:.1f} °C"),
        ("power", flags),
        ("clock", "synchronised" if device.clock_synchronized else "not synchronised"),
        ("system", f"{device.os}, kernel {device.kernel}"),
    ]
