"""``probe``: what this board is and how it fares."""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec

from reconvene_agent.cli.arguments import add_common, path
from reconvene_agent.cli.output import print_json
from reconvene_agent.core import config, profile
from reconvene_agent.core.device import Device, Power
from reconvene_agent.daemon.probe.device import probe_device


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_common(parser)
    parser.add_argument("--root", type=path, default=Path("/"), metavar="DIR", help="read /proc and /sys below DIR instead")


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


def _flags(power: Power) -> str:
    facts = {"short of voltage": power.under_voltage, "throttled": power.throttled}
    now = [name for name, on in facts.items() if on]
    if now:
        return " and ".join(now)
    if power.under_voltage_since_boot or power.throttled_since_boot:
        return "good now, but there was under-voltage or throttling since boot"
    unknown = [name for name, on in facts.items() if on is None]
    return f"good, but whether it is {' or '.join(unknown)} is not told" if unknown else "good"


def _lines(device: Device) -> list[tuple[str, str]]:
    memory, storage, power = device.memory, device.storage, device.power
    limit = f", limited by {memory.limited_by}" if memory.limited_by else ""
    return [
        ("board", device.model),
        ("processor", f"{device.cpu}, {device.architecture}, {device.cores} cores usable"),
        ("memory", f"{memory.available_mb:.0f} of {memory.total_mb:.0f} MiB available{limit}"),
        ("storage", f"{storage.free_mb:.0f} of {storage.total_mb:.0f} MiB free at {storage.path}"),
        ("temperature", "not told by this board" if device.temperature_c is None else f"{device.temperature_c:.1f} °C"),
        ("power", "not told by this board" if power is None else _flags(power)),
        ("clock", "synchronised" if device.clock_synchronized else "not synchronised"),
        ("system", f"{device.os}, kernel {device.kernel}"),
    ]
