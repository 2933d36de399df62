"""``fleet watch``: everything that one device says, a line each."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import msgspec

from reconvene_agent.cli.demo.story import EVENTS
from reconvene_agent.cli.fleet import said
from reconvene_agent.cli.fleet.address import address
from reconvene_agent.cli.fleet.hub import Heard, Offline
from reconvene_agent.cli.output import print_json, say
from reconvene_agent.cli.progress import describe
from reconvene_agent.core.clock import rfc3339
from reconvene_agent.core.errors import EXIT_OK, UsageError
from reconvene_agent.core.protocol import Happening
from reconvene_agent.core.topics import Topics, of_any_device, valid_segment

MAX_LINE = 240
# They tell a record apart from others, which nobody reads.
_HIDDEN = ("time", "boot_id", "seq", "session", "pid", "@type")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("device", metavar="DEVICE", help="the device's id")


def run(arguments: argparse.Namespace) -> int:
    if not valid_segment(arguments.device):
        raise UsageError(f"{arguments.device!r} is no device id")
    place = address(arguments)
    service = Topics(place.root, arguments.device).service
    try:
        # MQTT's own rule: the filter matches the service's topic as well.
        with place.hub(f"{service}/#") as hub:
            while True:
                news = hub.next(60.0)
                if isinstance(news, Offline):
                    say(f"no broker: {news.reason}")
                elif isinstance(news, Heard) and (found := of_any_device(place.root, news.topic)):
                    _tell(found[1], news, arguments.json)
    except KeyboardInterrupt:
        return EXIT_OK


def _tell(rest: str, news: Heard, as_json: bool) -> None:
    document = said.document(news.payload) if news.size else {}
    if as_json:
        print_json(
            {"time": rfc3339(time.time()), "topic": said.clean(rest), "bytes": news.size, "message": said.harmless(document)}
        )
    else:
        print(f"{time.strftime('%H:%M:%S')}  {line(rest, document, news.size)}")
        sys.stdout.flush()


def line(rest: str, document: dict[str, Any] | None, size: int) -> str:
    """Return the line that tells a message below a device's service; ``document`` is None for what is no JSON object."""
    if size == 0:
        told = "cleared"
    elif document is None:
        told = f"{size} bytes that are no message of an agent"
    else:
        told = _known(rest, document) or _figures(document)
    return said.clean(f"{said.clean(rest or 'registered', 60):<26} {told}".rstrip(), MAX_LINE)


def _known(rest: str, document: dict[str, Any]) -> str:
    """Return in words what has words; nothing for all that has not, or lacks something."""
    kind, _, name = rest.partition("/")
    if kind == "e" and name in EVENTS:
        try:
            return describe(Happening(EVENTS[name], document))
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError):
            return ""  # of another version, or malicious
    if kind == "cmd" and "/" in name:
        answer = said.answer(document)
        by = said.text(document, "requester", 60)
        return answer.where if answer else f"{said.text(document, 'status', 20)}{' by ' if by else ''}{by}"
    if kind == "cmd":
        return said.text(document, "description")
    return ""


def _figures(document: dict[str, Any]) -> str:
    """Return a document's plain values by name, and the names of what holds more."""
    parts = []
    for name, value in document.items():
        if name in _HIDDEN or value is None:
            continue
        if isinstance(value, float):
            parts.append(f"{name} {value:.6g}")
        elif isinstance(value, (str, int)):
            parts.append(f"{name} {value}" if isinstance(value, str) else f"{name} {msgspec.json.encode(value).decode()}")
        else:
            parts.append(f"{name} …")
    return ", ".join(parts[:40])
