"""``fleet``: many agents over their broker: list, watch, command, roll out."""

from __future__ import annotations

import argparse

from reconvene_agent.cli.fleet import listing, rolling, sending, watching
from reconvene_agent.cli.fleet.address import add_arguments as add_address

_ACTIONS = {
    "ls": ("all devices and how they fare", listing.add_arguments, listing.run),
    "send": ("send a command to devices", sending.add_send_arguments, sending.send),
    "watch": ("everything that a device says", watching.add_arguments, watching.run),
    "rollout": ("send a command to many devices in waves, and stop when too many fail", rolling.add_arguments, rolling.run),
    "clear": ("take a command back, or clear one that has ended", sending.add_clear_arguments, sending.clear),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, (text, add, _) in _ACTIONS.items():
        action = actions.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        add(action)
        add_address(action)


def run(arguments: argparse.Namespace) -> int:
    return _ACTIONS[arguments.action][2](arguments)
