"""``profiles``: the device profiles, and which one fits this board."""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec

from reconvene_agent.cli.arguments import add_output
from reconvene_agent.cli.output import print_json
from reconvene_agent.core import profile
from reconvene_agent.daemon.probe.device import probe_device


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    profiles = profile.load_all()
    fits = profile.choose(profiles, probe_device(Path("/"))).name
    if arguments.json:
        print_json({"fits": fits, "profiles": [msgspec.to_builtins(each) for each in profiles.values()]})
        return 0
    for each in profiles.values():
        print(f"{'→' if each.name == fits else ' '} {each.name:<22}{each.title}")
    return 0
