from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconvene_agent.core import protocol
from reconvene_agent.core.budget import Budget, Limit
from reconvene_agent.core.errors import ErrorCode
from reconvene_agent.core.job import Step
from reconvene_agent.core.options import MethodOptions, TrainingOptions
from reconvene_agent.core.protocol import Done, Failed, Happening, Progress, Ready, Stop, Suspended
from support.values import NASTY_JSON, json_values

RUNTIME = protocol.Runtime(1, 2, ("CPUExecutionProvider",), 32, width_multiple=8)
PLAN = protocol.PlanRequest("/b", Budget(latency_ms=Limit(5.0, "x")), RUNTIME, MethodOptions(), (0.5, 0.9), (1.0, 0.5), 64)
DOWNWARD: list[protocol.Downward] = [
    PLAN,
    msgspec.structs.replace(PLAN, sparsity=0.5),
    msgspec.structs.replace(PLAN, scoring=protocol.Scoring("/d", 0.3, 64.0)),
    protocol.PruneRequest("/b", 0.9, MethodOptions(width="sqrt"), RUNTIME, "/out"),
    protocol.PruneRequest("/b", 0.9, MethodOptions(criterion="snip"), RUNTIME, "/out", protocol.Scoring("/d")),
    protocol.SpecializeRequest(PLAN, TrainingOptions(epochs=3), "/d", "/w", "/m"),
    protocol.PredictRequest(("/a.png",), "/m", RUNTIME),
    protocol.BenchRequest("/b", "/m", RUNTIME, 1.0),
    protocol.ExportWeightsRequest("vgg16", (3, 32, 32), 10, 2**53 - 1, "/w"),
    Stop("cancel"),
    Stop("suspend"),
]

documents = st.dictionaries(st.text(), json_values, max_size=4)
upward = st.one_of(
    st.builds(Ready, st.integers(0, 99), st.text(), st.integers(1, 2**22)),
    st.builds(Progress, st.sampled_from(Step), st.floats(0, 1), st.text()),
    st.builds(Happening, st.text(), documents),
    st.builds(Done, documents),
    st.builds(Failed, st.sampled_from(ErrorCode), st.text(), st.none() | documents),
    st.just(Suspended()),
)


@given(upward)
def test_what_a_worker_says_is_understood(message: protocol.Upward) -> None:
    line = protocol.encode(message)
    assert protocol.decode_upward(line) == message
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1


@pytest.mark.parametrize("message", DOWNWARD, ids=lambda message: type(message).__name__)
def test_what_a_worker_is_told_is_understood(message: protocol.Downward) -> None:
    assert protocol.decode_downward(protocol.encode(message)) == message


@pytest.mark.parametrize("decode", [protocol.decode_upward, protocol.decode_downward])
@given(raw=st.binary() | json_values.map(msgspec.json.encode))
def test_garbage_is_one_exception(decode: Any, raw: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(raw)


@pytest.mark.parametrize("decode", [protocol.decode_upward, protocol.decode_downward])
@pytest.mark.parametrize("raw", NASTY_JSON.values(), ids=NASTY_JSON.keys())
def test_nasty_json_is_one_exception(decode: Any, raw: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(raw)


@pytest.mark.parametrize(
    "line",
    [
        b'{"type":"ready"}',
        b'{"type":"ready","protocol":"1","version":"","pid":1}',
        b'{"type":"progress","step":"dance","fraction":0.5}',
        b'{"type":"failed","code":"WHATEVER","message":""}',
        b'{"type":"plan"}',
        b'{"step":"plan","fraction":0.5}',
        b'{"type":"done","result":{"deep":' + b"[" * 500 + b"]" * 500 + b"}}",
    ],
)
def test_messages_that_are_not_of_this_protocol(line: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        protocol.decode_upward(line)


def test_a_line_has_a_limit() -> None:
    overhead = len(protocol.encode(Done({"x": ""})))
    assert len(protocol.encode(Done({"x": "y" * (protocol.MAX_LINE - overhead)}))) == protocol.MAX_LINE
    with pytest.raises(ValueError, match="over the channel's limit"):
        protocol.encode(Done({"x": "y" * (protocol.MAX_LINE - overhead + 1)}))
