"""``fleet send`` and ``fleet clear``: one command to some devices, and taking one back."""

from __future__ import annotations

import argparse
import getpass
import socket
import time
import uuid
from typing import Any

import msgspec

from reconvene_agent.cli.arguments import number, path
from reconvene_agent.cli.fleet import orders, said
from reconvene_agent.cli.fleet.address import address
from reconvene_agent.cli.fleet.hub import Heard, Hub
from reconvene_agent.cli.fleet.said import Answer
from reconvene_agent.cli.fleet.signed import encoded
from reconvene_agent.cli.output import print_json, say
from reconvene_agent.core.errors import EXIT_CODES, EXIT_OK, ErrorCode, UsageError
from reconvene_agent.core.job import Status
from reconvene_agent.core.topics import Topics, of_any_device

WAIT_S = 600.0
SIGNED_S = 3600.0
"""How long a signed command may be begun where nobody has said: it must say so itself."""
NO_ANSWER = EXIT_CODES[ErrorCode.TIMED_OUT]


def add_send_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("op", metavar="OP", help="the operation, such as specialize or ping")
    parser.add_argument("devices", nargs="+", metavar="DEVICE", help="the devices' ids")
    add_order_arguments(parser)
    parser.add_argument(
        "--expires",
        type=number,
        metavar="S",
        help=f"give it up if it has not begun after so many seconds (default with --key: {SIGNED_S:g})",
    )
    parser.add_argument("--wait", action="store_true", help="wait for the end of it on every device")
    parser.add_argument("--timeout", type=number, default=WAIT_S, metavar="S", help=f"wait so long at most (default: {WAIT_S:g})")


def add_order_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what a command consists of."""
    parser.add_argument("--args", default="{}", metavar="JSON", help="its arguments (docs/mqtt.md)")
    parser.add_argument("--id", metavar="ID", help="its id on every device (default: a new one)")
    parser.add_argument("--key", type=path, metavar="FILE", help="sign it with this private key (docs/security.md)")


def add_clear_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("op", metavar="OP", help="the operation")
    parser.add_argument("id", metavar="ID", help="the command's id")
    parser.add_argument("devices", nargs="+", metavar="DEVICE", help="the devices' ids")


def send(arguments: argparse.Namespace) -> int:
    devices = orders.checked_devices(arguments.devices)
    args = orders.checked_args(arguments.op, arguments.args)
    command_id = orders.checked_id(arguments.id) if arguments.id else fresh_id("send")
    if (arguments.expires is not None and arguments.expires <= 0) or arguments.timeout <= 0:
        raise UsageError("--expires and --timeout must be more than 0 seconds")
    expires_s = arguments.expires or (None if arguments.key is None else SIGNED_S)
    payload = orders.compose(args, requester(), time.time(), expires_s)
    place = address(arguments)
    messages = {
        Topics(place.root, device).command(arguments.op, command_id): encoded(
            arguments.key, arguments.op, device, command_id, payload
        )
        for device in devices
    }
    with place.hub(_filter(place.root, devices, arguments.op, command_id)) as hub:
        hub.deliver(messages)
        say(f"{arguments.op}/{command_id} is sent to {_count(devices)}")
        if not arguments.wait:
            return _report(arguments.op, command_id, dict.fromkeys(devices), arguments.json, waited=False)
        answers = _wait(hub, place.root, devices, payload["issued_at"], time.monotonic() + arguments.timeout)
    return _report(arguments.op, command_id, answers, arguments.json, waited=True)


def clear(arguments: argparse.Namespace) -> int:
    devices = orders.checked_devices(arguments.devices)
    command_id = orders.checked_id(arguments.id)
    orders.checked_id(arguments.op)
    place = address(arguments)
    with place.hub(_filter(place.root, devices, arguments.op, command_id)) as hub:
        hub.deliver({Topics(place.root, device).command(arguments.op, command_id): b"" for device in devices})
    if arguments.json:
        print_json({"op": arguments.op, "id": command_id, "devices": devices})
    else:
        print(f"{arguments.op}/{command_id} is cleared on {_count(devices)}; what has begun goes on")
    return EXIT_OK


def _filter(root: str, devices: list[str], op: str, command_id: str) -> str:
    """Return what to listen to: the same id everywhere makes one filter do for any number of devices."""
    return Topics(root, devices[0] if len(devices) == 1 else "+").command(op, command_id)


def _wait(hub: Hub, root: str, devices: list[str], issued_at: str, deadline: float) -> dict[str, Answer | None]:
    """Return each device's last answer to what was issued then, as soon as all have ended, or the time is over."""
    answers: dict[str, Answer | None] = dict.fromkeys(devices)
    told: dict[str, str] = {}
    open_ones = set(devices)
    while open_ones and (left_s := deadline - time.monotonic()) > 0:
        news = hub.next(left_s)
        found = of_any_device(root, news.topic) if isinstance(news, Heard) else None
        if not isinstance(news, Heard) or found is None or found[0] not in open_ones:
            continue
        device = found[0]
        answer = said.answer(said.document(news.payload) or {})
        if answer is None or answer.issued_at != issued_at:
            continue
        answers[device] = answer
        if answer.status.terminal:
            open_ones.discard(device)
        stage = answer.status.value + answer.step
        if told.get(device) != stage:
            told[device] = stage
            say(f"{device}: {answer.where}")
    return answers


def _report(op: str, command_id: str, answers: dict[str, Answer | None], as_json: bool, waited: bool) -> int:
    """Say what came of it; return the exit code."""
    codes = [exit_code(answer) for answer in answers.values()] if waited else []
    if as_json:
        listed = [{"device": device, **_entry(answer)} for device, answer in answers.items()]
        print_json({"op": op, "id": command_id, "devices": listed})
    elif waited:
        for device, answer in answers.items():
            print(f"{device}: {answer.where if answer else 'no answer'}")
            if answer and answer.status is Status.SUCCESSFUL and answer.result is not None:
                print(f"  {said.clean(msgspec.json.encode(answer.result).decode(), 1000)}")
    late = [device for device, answer in answers.items() if waited and not (answer and answer.status.terminal)]
    if late:
        say(f"{_count(late)} did not end in time; the command stays: 'fleet clear {op} {command_id} DEVICE' takes it back")
    return orders.exit_code_of(codes)


def _entry(answer: Answer | None) -> dict[str, Any]:
    if answer is None:
        return {"status": None, "result": None, "error": None}
    error = {"code": answer.code, "detail": answer.reason} if answer.status is Status.FAILED else None
    return {"status": answer.status.value, "result": answer.result, "error": error}


def exit_code(answer: Answer | None) -> int:
    """Return the exit code for one device's answer."""
    if answer is None or not answer.status.terminal:
        return NO_ANSWER
    if answer.status is Status.SUCCESSFUL:
        return EXIT_OK
    return EXIT_CODES[ErrorCode(answer.code)] if answer.code in ErrorCode._value2member_map_ else 1


def fresh_id(kind: str) -> str:
    return orders.new_id(kind, time.time(), uuid.uuid4().hex[:6])


def requester() -> str:
    """Return who sends commands here."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "fleet"  # a container without a list of users
    return f"{user}@{socket.gethostname()}"


def _count(devices: list[str]) -> str:
    return devices[0] if len(devices) == 1 else orders.counted(len(devices))
