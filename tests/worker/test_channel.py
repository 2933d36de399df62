from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator
from threading import Event

import msgspec
import pytest

from reconvene_agent.core import protocol
from reconvene_agent.core.job import Step
from reconvene_agent.core.protocol import Done, Downward, Happening, Progress, Stop, Upward
from reconvene_agent.worker import channel as channels
from reconvene_agent.worker.channel import REPORTS_PER_SECOND, Channel, StopRequested
from support.runs import NOBODY


class Other:
    """The other end of a channel."""

    def __init__(self, end: socket.socket) -> None:
        self.socket = end
        self.lines = end.makefile("rb")
        end.settimeout(10)

    def hear(self) -> Upward:
        return protocol.decode_upward(self.lines.readline())

    def close(self) -> None:
        self.lines.close()
        self.socket.close()


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Other]]:
    ours, theirs = socket.socketpair()
    other = Other(ours)
    channel = Channel(theirs.detach())
    yield channel, other
    other.close()
    channel._reader.close()
    channel._socket.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(channels.time, "monotonic", lambda: now[0])
    return now


def test_messages_arrive_as_they_were_sent(ends: tuple[Channel, Other]) -> None:
    channel, other = ends
    channel.send(Done({"a": [1, None, "ü"]}))
    assert other.hear() == Done({"a": [1, None, "ü"]})
    channel.event("epoch", {"loss": 0.5})
    assert other.hear() == Happening("epoch", {"loss": 0.5})
    other.socket.sendall(protocol.encode(Stop("cancel")))
    assert channel.receive() == Stop("cancel")


def test_progress_is_told_at_a_bounded_rate_and_at_every_new_step(ends: tuple[Channel, Other], clock: list[float]) -> None:
    channel, other = ends
    for _ in range(100):
        channel.progress(Step.TRAIN, 0.1)
        clock[0] += 1 / (10 * REPORTS_PER_SECOND)
    channel.progress(Step.EVALUATE, 0.0, "a")
    channel.progress(Step.EXPORT, 0.0)
    channel.send(Done({}))
    heard = []
    while (message := other.hear()) != Done({}):
        assert isinstance(message, Progress)
        heard.append(message.step)
    assert heard[-2:] == [Step.EVALUATE, Step.EXPORT]
    assert heard.count(Step.TRAIN) == pytest.approx(10, abs=1)


@pytest.mark.parametrize(("fraction", "told"), [(-0.5, 0.0), (1.5, 1.0), (0.123456, 0.1235)])
def test_a_fraction_is_told_between_0_and_1(ends: tuple[Channel, Other], fraction: float, told: float) -> None:
    channel, other = ends
    channel.progress(Step.TRAIN, fraction)
    assert other.hear() == Progress(Step.TRAIN, told)


def stopped(channel: Channel) -> str:
    """Wait until the channel's watch has ended, and return the way in which the next report stops the work."""
    watch = Event()
    real = channel._watch

    def watching() -> None:
        real()
        watch.set()

    channel._watch = watching
    channel.watch_for_stop()
    assert watch.wait(10)
    with pytest.raises(StopRequested) as caught:
        channel.progress(Step.TRAIN, 0.0)
    return caught.value.mode


@pytest.mark.parametrize("mode", ["cancel", "suspend"])
def test_a_stop_is_noticed_at_the_next_report(ends: tuple[Channel, Other], mode: str) -> None:
    channel, other = ends
    channel.progress(Step.TRAIN, 0.0)
    other.socket.sendall(protocol.encode(Stop(mode)))
    assert stopped(channel) == mode


@pytest.mark.parametrize("rubbish", [b"rubbish\n", b'{"type":"\xff"}\n', b"\xff" * 100 + b"\n", b"x" * (protocol.MAX_LINE + 5)])
def test_rubbish_in_place_of_a_stop_suspends(ends: tuple[Channel, Other], rubbish: bytes) -> None:
    channel, other = ends
    other.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * protocol.MAX_LINE)
    other.socket.setblocking(False)
    try:
        other.socket.sendall(rubbish)
    except BlockingIOError:
        pass  # what fits is enough: the rest is noticed as the end of the channel
    other.close()
    assert stopped(channel) == "suspend"


def test_a_stop_that_comes_while_it_starts_afresh_is_left_to_be_read(
    ends: tuple[Channel, Other], monkeypatch: pytest.MonkeyPatch
) -> None:
    channel, other = ends
    watching = threading.Thread(target=channel._watch, daemon=True)
    handed: list[Downward] = []

    def become(program: str, arguments: list[str]) -> None:
        assert program == sys.executable
        watching.start()
        other.socket.sendall(protocol.encode(Stop("cancel")))
        descriptors = {name: int(value) for name, value in zip(arguments[3::2], arguments[4::2], strict=True)}
        assert all(os.get_inheritable(each) for each in descriptors.values())
        handed.append(protocol.decode_downward(os.pread(descriptors["--request"], 1 << 20, 0)))
        # What the new process finds is still there, for it alone.
        with socket.socket(fileno=os.dup(descriptors["--channel"])) as inherited:
            assert inherited.recv(1 << 10, socket.MSG_PEEK) == protocol.encode(Stop("cancel"))
        raise PermissionError

    monkeypatch.setattr(channels.os, "execv", become)
    channel.start_afresh(NOBODY)
    assert handed == [NOBODY]
    assert not os.get_inheritable(channel._socket.fileno())
    watching.join(10)
    with pytest.raises(StopRequested):
        channel.start_afresh(NOBODY)


def test_when_the_other_side_is_gone_the_work_is_suspended(ends: tuple[Channel, Other]) -> None:
    channel, other = ends
    other.close()
    assert stopped(channel) == "suspend"


def test_sending_to_nobody_is_no_error_but_stops_the_work(ends: tuple[Channel, Other]) -> None:
    channel, other = ends
    other.close()
    channel.send(Done({}))
    with pytest.raises(StopRequested) as caught:
        channel.check()
    assert caught.value.mode == "suspend"


def test_the_end_of_the_channel_is_no_message(ends: tuple[Channel, Other]) -> None:
    channel, other = ends
    other.close()
    assert channel.receive() is None


def test_a_line_that_is_no_message_is_told_as_such(ends: tuple[Channel, Other]) -> None:
    channel, other = ends
    other.socket.sendall(b'{"type":"nonsense"}\n')
    with pytest.raises(msgspec.DecodeError):
        channel.receive()
