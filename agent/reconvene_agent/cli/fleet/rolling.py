"""``fleet rollout``: what it takes, the file that keeps its state, and what is said of it."""

from __future__ import annotations

import argparse
import hashlib
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec

from reconvene_agent.cli.arguments import number, path
from reconvene_agent.cli.fleet import driving, orders
from reconvene_agent.cli.fleet.address import Address, address
from reconvene_agent.cli.fleet.hub import Heard
from reconvene_agent.cli.fleet.picture import Picture
from reconvene_agent.cli.fleet.rollout import FORMAT, Fate, Order, Record, Rollout, Share, Target, share
from reconvene_agent.cli.fleet.sending import add_order_arguments, fresh_id, requester
from reconvene_agent.cli.fleet.signed import encoded
from reconvene_agent.cli.foreground import StoppedError
from reconvene_agent.cli.output import print_json, say
from reconvene_agent.core import atomic
from reconvene_agent.core.decoding import from_json
from reconvene_agent.core.errors import EXIT_OK, AgentError, ErrorCode, UsageError
from reconvene_agent.core.topics import Topics

EXIT_ABORTED = 12
TIMEOUT_S = 3600.0
MAX_NAMED = 20
CANARY, BATCH, ABORT_OVER = Share(5, True), Share(20, True), Share(10, True)

_record = msgspec.json.Decoder(Record)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("op", metavar="OP", nargs="?", help="the operation, such as specialize")
    parser.add_argument("devices", nargs="*", metavar="DEVICE", help="the devices' ids, canaries first")
    parser.add_argument("--all", action="store_true", help="every device that is up")
    add_order_arguments(parser)
    parser.add_argument("--canary", type=_share, metavar="N", help="devices of the first wave, or N%% of all (default: 5%%)")
    parser.add_argument("--batch", type=_share, metavar="N", help="devices of every later wave, or N%% of all (default: 20%%)")
    parser.add_argument("--abort-over", type=_share, metavar="N", help="stop when more have failed, or N%% (default: 10%%)")
    parser.add_argument("--timeout", type=number, metavar="S", help=f"a device must have ended by then (default: {TIMEOUT_S:g})")
    parser.add_argument("--state", type=path, metavar="FILE", help="where the state is kept (default: ID.json)")
    parser.add_argument("--resume", type=path, metavar="FILE", help="go on with the rollout whose state this is")


def _share(text: str) -> Share:
    try:
        return share(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of devices nor a percentage") from None


def run(arguments: argparse.Namespace) -> int:
    if arguments.timeout is not None and arguments.timeout <= 0:
        raise UsageError("--timeout must be more than 0 seconds")
    place = address(arguments)
    if arguments.resume is not None:
        with _only_one(arguments.resume):
            record = _resumed(arguments)
            return _drive(place, record, arguments.resume, arguments.json)
    order = _order(arguments, place.root)
    devices = _everybody(place, order) if arguments.all else orders.checked_devices(arguments.devices)
    if not devices:
        raise UsageError("no device is up: 'fleet ls' shows them" if arguments.all else "name devices, or take --all")
    file = arguments.state or Path(f"{order.id}.json")
    with _only_one(file):
        if file.exists():
            raise UsageError(f"{file} is there already: go on with it by --resume, or name another with --state")
        record = Record(FORMAT, order, [Target(device) for device in devices])
        save(file, record)
        return _drive(place, record, file, arguments.json)


def _order(arguments: argparse.Namespace, root: str) -> Order:
    if arguments.op is None:
        raise UsageError("name the operation, or a state to --resume")
    if arguments.all and arguments.devices:
        raise UsageError("name devices or take --all, not both")
    return Order(
        root=root,
        op=arguments.op,
        id=orders.checked_id(arguments.id) if arguments.id else fresh_id("rollout"),
        args=orders.checked_args(arguments.op, arguments.args),
        requester=requester(),
        canary=arguments.canary or CANARY,
        batch=arguments.batch or BATCH,
        abort_over=arguments.abort_over or ABORT_OVER,
        timeout_s=arguments.timeout or TIMEOUT_S,
        key="" if arguments.key is None else str(arguments.key.resolve()),
    )


def _everybody(place: Address, order: Order) -> list[str]:
    """Return all devices that are up, in an order that has nothing to do with their names, so that canaries are of all kinds."""
    picture = Picture(place.root)
    with place.hub(Topics(place.root, "+").health) as hub:
        for news in hub.until_quiet():
            if isinstance(news, Heard):
                picture.take(news.topic, news.payload, news.size, time.time(), live=False)
    up = [device.name for device in picture.by_name() if device.up]
    if len(up) < len(picture.devices):
        say(f"down and left out: {orders.counted(len(picture.devices) - len(up))}")
    return sorted(up, key=lambda name: hashlib.sha256(f"{order.id}/{name}".encode()).digest())


def _resumed(arguments: argparse.Namespace) -> Record:
    """Return a record to go on with: an abort is thought over anew, with the limits that are given now."""
    file: Path = arguments.resume
    given = [flag for flag in ("op", "id", "canary", "batch", "state") if getattr(arguments, flag) is not None]
    if given or arguments.all or arguments.args != "{}":
        raise UsageError("--resume goes on as the rollout was begun: only --abort-over, --timeout and --key can be changed")
    try:
        record = from_json(file.read_bytes(), _record.decode)
    except (OSError, msgspec.DecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"{file}: no state of a rollout can be read: {reason}") from error
    if record.format != FORMAT:
        raise UsageError(f"{file}: is a state of format {record.format}; this program knows {FORMAT}")
    order = record.order
    abort_over, timeout_s = arguments.abort_over or order.abort_over, arguments.timeout or order.timeout_s
    key = order.key if arguments.key is None else str(arguments.key.resolve())
    record.order = msgspec.structs.replace(order, abort_over=abort_over, timeout_s=timeout_s, key=key)
    record.aborted = ""
    return record


def save(file: Path, record: Record) -> None:
    """Keep a record on disk, wholly or not at all."""
    atomic.write_bytes(file, msgspec.json.encode(record))


def _drive(place: Address, record: Record, file: Path, as_json: bool) -> int:
    order = record.order

    def compose(device: str, now: float) -> str:
        payload = orders.compose(order.args, order.requester, now, order.timeout_s)
        return encoded(Path(order.key) if order.key else None, order.op, device, order.id, payload).decode()

    rollout = Rollout(record, compose)
    compose("", time.time())  # what is too large is told before anything is sent
    say(f"{order.op}/{order.id} goes to {orders.counted(len(record.targets))}; its state is in {file}")
    stopped: signal.Signals | None = None
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with place.hub(Topics(order.root, "+").command(order.op, order.id)) as hub:
            driving.drive(hub, rollout, lambda: save(file, record))
    except KeyboardInterrupt as stop:
        stopped = signal.Signals(*stop.args or (signal.SIGINT,))
    finally:
        signal.signal(signal.SIGTERM, previous)
        if rollout.changed:
            save(file, record)
    return _report(rollout, file, as_json, stopped)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    """Let SIGTERM unwind as Ctrl-C does."""
    raise KeyboardInterrupt(number)


def _report(rollout: Rollout, file: Path, as_json: bool, stopped: signal.Signals | None) -> int:
    record = rollout.record
    failures = [each for each in record.targets if each.fate in (Fate.FAILED, Fate.SILENT)]
    document = {
        "op": record.order.op,
        "id": record.order.id,
        "state": str(file),
        "waves": record.waves,
        "devices": len(record.targets),
        **rollout.counts,
        "aborted": record.aborted or None,
        "failures": [
            {"device": each.device, "wave": each.wave, "code": each.code or None, "detail": each.detail} for each in failures
        ],
    }
    words = ", ".join(f"{count} {name}" for name, count in rollout.counts.items() if count)
    go_on = f"'reconvene-agent fleet rollout --resume {file}' goes on"
    if stopped is not None:
        raise StoppedError(stopped, f"stopped: {words}; {go_on}")
    if record.aborted:
        raise AbortedError(f"stopped in wave {record.waves}: {record.aborted}; {words}; {go_on}", document)
    if as_json:
        print_json(document)
        return EXIT_OK
    waves = "1 wave" if record.waves == 1 else f"{record.waves} waves"
    print(f"{orders.counted(len(record.targets))} in {waves}: {words}")
    for each in failures[:MAX_NAMED]:
        print(f"  {each.device}: {each.code + ': ' if each.code else ''}{each.detail}")
    if len(failures) > MAX_NAMED:
        print(f"  and {len(failures) - MAX_NAMED} more in {file}")
    return EXIT_OK


class AbortedError(AgentError):
    """Too many devices failed."""

    exit_code = EXIT_ABORTED

    def __init__(self, message: str, result: dict[str, Any]) -> None:
        super().__init__(message, ErrorCode.INTERNAL, result)


@contextmanager
def _only_one(file: Path) -> Iterator[None]:
    """Hold a state against other processes of this machine, by a name that the kernel forgets when we are gone.

    Raises:
        AgentError: BUSY when another process holds it.
    """
    name = hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:32]
    with socket.socket(socket.AF_UNIX) as held:
        try:
            held.bind(f"\0reconvene-fleet-{name}")
        except OSError as error:
            raise AgentError(f"another process drives the rollout of {file}", ErrorCode.BUSY) from error
        yield
