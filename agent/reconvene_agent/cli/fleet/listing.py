"""``fleet ls``: the table of all devices, once or live."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import time

from reconvene_agent.cli.fleet.address import address
from reconvene_agent.cli.fleet.hub import Heard, Hub, Offline
from reconvene_agent.cli.fleet.orders import counted
from reconvene_agent.cli.fleet.picture import HEADINGS, LEFT, Device, Picture, entry, row, subscriptions
from reconvene_agent.cli.output import print_json, say
from reconvene_agent.cli.tables import print_table
from reconvene_agent.core.errors import EXIT_OK

REFRESH_S = 1.0
CLEAR_SCREEN = "\033[2J\033[H"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--watch", action="store_true", help="show it again every second until Ctrl-C (default on a terminal)")
    how.add_argument("--once", action="store_true", help="show it once (default elsewhere, and with --json)")


def run(arguments: argparse.Namespace) -> int:
    place = address(arguments)
    picture = Picture(place.root)
    live = arguments.watch or not (arguments.once or arguments.json or not sys.stdout.isatty())
    with place.hub(*subscriptions(place.root)) as hub:
        for news in hub.until_quiet():
            if isinstance(news, Heard):
                picture.take(news.topic, news.payload, news.size, time.time(), live=False)
        if not live:
            _show_once(picture, arguments.json)
            return EXIT_OK
        with contextlib.suppress(KeyboardInterrupt):
            _follow(hub, picture, arguments.json)
    return EXIT_OK


def _follow(hub: Hub, picture: Picture, as_json: bool) -> None:
    reason, again = "", 0.0
    while True:
        if (left_s := again - time.monotonic()) <= 0:
            _show(picture, as_json, reason)
            again = time.monotonic() + REFRESH_S
            continue
        news = hub.next(left_s)
        if isinstance(news, Heard):
            picture.take(news.topic, news.payload, news.size, time.time(), live=not reason)
        elif news is not None:
            # After a new connection everything retained comes again: only its own times tell how old it is.
            reason = news.reason if isinstance(news, Offline) else ""


def _show_once(picture: Picture, as_json: bool) -> None:
    if as_json:
        _print_json(picture)
        return
    _print_table(picture.by_name())
    say(_summary(picture))


def _show(picture: Picture, as_json: bool, reason: str) -> None:
    if as_json:
        _print_json(picture)
        return
    terminal = sys.stdout.isatty()
    print(CLEAR_SCREEN if terminal else "")
    devices = picture.by_interest() if terminal else picture.by_name()
    room = max(1, shutil.get_terminal_size().lines - 5) if terminal else len(devices)
    _print_table(devices[:room])
    left_out = f"; {len(devices) - room} more" if len(devices) > room else ""
    print(_summary(picture) + left_out + (f"; no broker: {reason}" if reason else ""))
    sys.stdout.flush()


def _print_table(devices: list[Device]) -> None:
    now = time.time()
    columns = len(HEADINGS) if any(device.alarms for device in devices) else HEADINGS.index("alarms")
    if devices:
        print_table(HEADINGS[:columns], [row(device, now)[:columns] for device in devices], left=LEFT)


def _print_json(picture: Picture) -> None:
    devices = [entry(device) for device in picture.by_name()]
    print_json({**picture.summary(), "senseless": picture.senseless, "list": devices})


def _summary(picture: Picture) -> str:
    counts = picture.summary()
    senseless = f", {picture.senseless} messages without sense" if picture.senseless else ""
    return f"{counted(counts['devices'])}: {counts['up']} up, {counts['down']} down, {counts['busy']} busy{senseless}"
