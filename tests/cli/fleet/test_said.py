"""What devices say: no message may crash the operator's program, or reach the terminal as anything but text on one line."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reconvene_agent.cli.fleet import said
from reconvene_agent.cli.fleet.picture import Picture, entry, row
from reconvene_agent.cli.fleet.watching import line
from reconvene_agent.core.job import Status
from reconvene_agent.core.messages import MAX_PAYLOAD

ESCAPE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp.exe\r\n\u2028\x00\x7f"
SERVICE = "te/device/board-1/service/reconvene-agent"
NAMES = ("status", "state", "version", "rev", "step", "progress", "reason", "error", "result", "time", "updated_at", "accuracy")
NAMES += ("latency_ms", "bytes", "sparsity", "text", "p50", "p95", "chosen", "params", "seconds", "epoch", "epochs", "loss")
NAMES += ("width_multiplier", "dense", "stored", "total", "examples", "issued_at", "requester", "code", "detail", "description")
WORDS = ("up", "down", "idle", "specialize", "executing", "successful", "failed", "init", ESCAPE, "2026-01-01T00:00:00Z", "")
TOPICS = ("", "status/health", "twin/model", "twin/hardware", "cmd/ping", "cmd/plan/1", "a/over_budget", "m/system", "e/epoch")
TOPICS += ("e/plan_chosen", "e/model_pruned", "e/model_promoted", "e/warning", "x", "a", "cmd", "a/b/c/d", ESCAPE)

texts = st.sampled_from(WORDS) | st.text(max_size=20)
numbers = st.floats() | st.integers() | st.sampled_from((10**400, -1, 2**63, True))
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)
documents = st.dictionaries(st.sampled_from(NAMES), values, max_size=10)


def encoded(document: Any) -> bytes:
    """Return JSON with whatever numbers there are, also those that no one should send."""
    import json

    return json.dumps(document).encode("utf-8", "surrogatepass")


payloads = st.binary(max_size=60) | documents.map(encoded) | values.map(encoded)


def harmless(text: str) -> bool:
    return all(letter.isprintable() for letter in text)


@given(rest=st.sampled_from(TOPICS), payload=payloads, live=st.booleans())
@example("status/health", b'{"status":"up","state":"' + ESCAPE.encode()[14:] + b'"}', True)
@example("m/system", b'{"x":' + b"9" * 5000 + b"}", True)
@example("e/epoch", b'{"epoch":1,"epochs":2,"loss":' + b"9" * 400 + b',"accuracy":1}', True)
@example("e/warning", b'{"text":{},"examples":"abcdef"}', False)
@example("twin/model", b"[" * 70000, False)
@example("cmd/plan/1", b'{"status":["executing"],"rev":1}', False)
def test_whatever_a_device_says_becomes_one_harmless_line(rest: str, payload: bytes, live: bool) -> None:
    topic = f"{SERVICE}/{rest}" if rest else SERVICE
    picture = Picture("te")
    for said_before in (b'{"status":"up","state":"specialize"}', b""):
        picture.take(f"{SERVICE}/status/health", said_before or payload, len(said_before or payload), 1e9, live)
        picture.take(topic, payload, len(payload), 1e9, live)
    for device in picture.by_interest():
        assert all(map(harmless, row(device, 1e9)))
        assert "\x9b" not in msgspec.json.encode(entry(device)).decode()
    told = line(rest, said.document(payload), len(payload))
    assert harmless(told)
    assert len(told) <= 240


nested = st.recursive(texts, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=8)


@given(value=nested)
def test_what_is_passed_on_as_json_moves_no_cursor(value: Any) -> None:
    written = msgspec.json.encode(said.harmless(msgspec.json.decode(encoded(value)))).decode()
    assert all(letter.isprintable() for letter in written)


def test_a_text_is_cut_and_cleaned() -> None:
    assert said.clean("a\x1b[31mb\nc") == "a?[31mb?c"
    assert said.clean("x" * 300) == "x" * 199 + "…"
    assert said.clean("Zürich – 日本") == "Zürich – 日本"


@pytest.mark.parametrize("payload", [None, b"", b"{", b"[]", b"\xff", b'"x"', b"{}" + b" " * MAX_PAYLOAD])
def test_what_is_no_object_is_nothing(payload: bytes | None) -> None:
    assert said.document(payload) is None


def test_an_answer_is_told_from_a_request() -> None:
    assert said.answer({"status": "init", "args": {}}) is None
    assert said.answer({"status": "nonsense", "rev": 1}) is None
    answer = said.answer({"status": "executing", "rev": 3, "step": "train", "progress": 0.42, "issued_at": "then"})
    assert answer is not None
    assert (answer.status, answer.issued_at, answer.where) == (Status.EXECUTING, "then", "executing train 42%")


def test_a_failure_tells_its_code_and_reason() -> None:
    error = {"code": "NO_DATA", "retryable": False, "detail": "none"}
    answer = said.answer({"status": "failed", "rev": 3, "step": "train", "progress": 0.4, "reason": "none", "error": error})
    assert answer is not None
    assert (answer.code, answer.where) == ("NO_DATA", "failed: NO_DATA: none")


@pytest.mark.parametrize("value", [True, "1", None, float("nan"), float("inf"), 10**400, -1, 2])
def test_a_share_is_a_number_from_0_to_1(value: object) -> None:
    assert said.number({"x": value}, "x", 0.0, 1.0) is None
