from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from reconvene_agent.core import signing
from reconvene_agent.core.clock import Now, rfc3339
from reconvene_agent.core.errors import ErrorCode, UsageError
from reconvene_agent.core.job import Command, digest_of
from reconvene_agent.core.messages import OPERATIONS
from reconvene_agent.core.topics import CommandTopic
from reconvene_agent.daemon.security import trust as trusts
from reconvene_agent.daemon.security.trust import Memory, Nonce, Trust, nonce_of
from support.agents import WALL
from support.signatures import PUBLIC, SEED, TRUSTED, signed

NOW = Now(WALL, 0.0)
UNSURE = Now(WALL, 0.0, synchronized=False)
HOUR = 3600.0


def known(label: str, request: dict[str, Any]) -> Command:
    op, _, command_id = label.partition("/")
    return Command(op, command_id, request, digest_of(request), WALL, WALL)


def verdict(trust: Trust, label: str, request: dict[str, Any], *accepted: Command, now: Now = NOW) -> str:
    """Return the code of a refusal, or nothing."""
    op, _, command_id = label.partition("/")
    try:
        trust.check(CommandTopic(op, command_id), accepted, now, request)
    except UsageError as error:
        return error.code.value
    return ""


def test_only_ping_does_without_a_signature() -> None:
    trust = Trust("board-1", TRUSTED, Memory())
    assert {op for op in OPERATIONS if not trust.demanded(op)} == {"ping"}
    assert {op for op in OPERATIONS if verdict(trust, f"{op}/1", {"args": {}}) == "BAD_SIGNATURE"} == set(OPERATIONS) - {"ping"}
    assert not trust.demanded("unknown"), "it is answered as what it is"


def test_without_keys_nothing_is_demanded() -> None:
    trust = Trust("board-1", {}, Memory())
    assert not any(trust.demanded(op) or verdict(trust, f"{op}/1", {"args": {}}) for op in OPERATIONS)


def test_any_trusted_key_will_do_and_no_other() -> None:
    old, new, other = bytes(32), SEED, bytes([7] * 32)
    trust = Trust("board-1", {key.id: key for key in map(signing.public_of, (old, new))}, Memory())
    assert verdict(trust, "plan/1", signed("plan/1", seed=old)) == ""
    assert verdict(trust, "plan/2", signed("plan/2", seed=new)) == ""
    assert verdict(trust, "plan/3", signed("plan/3", seed=other)) == "BAD_SIGNATURE"
    assert verdict(trust, "plan/4", signed("plan/4", device="board-2")) == "BAD_SIGNATURE"


def test_a_nonce_passes_once() -> None:
    trust = Trust("board-1", TRUSTED, Memory())
    request = signed("plan/1")
    assert verdict(trust, "plan/1", request) == ""
    assert verdict(trust, "plan/1", request, known("plan/1", request)) == "REPLAYED"
    assert verdict(trust, "plan/2", signed("plan/2"), known("plan/1", request)) == ""


def test_a_nonce_passes_no_more_when_the_journal_has_forgotten_its_command() -> None:
    trust = Trust("board-1", TRUSTED, Memory())
    request = signed("plan/1")
    kept = trust.retire(known("plan/1", request))
    assert kept == Nonce(f"{PUBLIC.id}:{request['sig']['nonce']}", WALL + HOUR)
    for holder in (trust, Trust("board-1", TRUSTED, Memory({kept.name: kept.expires_at}))):
        assert verdict(holder, "plan/1", request) == "REPLAYED"
        assert verdict(holder, "plan/1", request, now=UNSURE) == "REPLAYED"


def test_a_nonce_is_forgotten_when_its_command_has_expired_and_never_passes_again() -> None:
    trust = Trust("board-1", TRUSTED, Memory())
    request = signed("plan/1")
    trust.retire(known("plan/1", request))
    assert trust.forgettable(NOW) is None
    assert trust.forgettable(Now(WALL + 2 * HOUR, 0.0, synchronized=False)) is None, "that clock may be wrong"
    floor = trust.forgettable(Now(WALL + 2 * HOUR, 0.0))
    assert floor == WALL + HOUR
    for holder in (trust, Trust("board-1", TRUSTED, Memory({}, floor))):
        assert verdict(holder, "plan/1", request) == "REPLAYED", "even if the clock has gone back"
        assert verdict(holder, "plan/2", signed("plan/2", wall=WALL + 1)) == "", "what expires later passes"


def test_the_number_of_nonces_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trusts, "MAX_NONCES", 3)
    trust = Trust("board-1", TRUSTED, Memory())
    requests = {f"plan/{number}": signed(f"plan/{number}", wall=WALL + number) for number in range(5)}
    for label, request in requests.items():
        trust.retire(known(label, request))
    assert trust.forgettable(NOW) == WALL + 1 + HOUR
    assert trust.forgettable(NOW) is None
    assert {verdict(trust, label, request) for label, request in requests.items()} == {"REPLAYED"}
    assert verdict(trust, "plan/9", signed("plan/9", wall=WALL + 2)) == ""


def test_what_was_issued_before_a_lost_journal_may_have_been_used() -> None:
    trust = Trust("board-1", TRUSTED, Memory(begun=WALL + 10))
    assert verdict(trust, "plan/1", signed("plan/1", wall=WALL + 10)) == "REPLAYED"
    assert verdict(trust, "plan/1", signed("plan/1", wall=WALL + 11)) == ""


def test_an_expired_command_is_left_to_be_told_so() -> None:
    trust = Trust("board-1", TRUSTED, Memory())
    request = signed("plan/1")
    assert verdict(trust, "plan/1", request, known("plan/1", request), now=Now(WALL + HOUR, 0.0)) == ""


@pytest.mark.parametrize(("ahead", "code"), [(300.0, ""), (301.0, "BAD_SIGNATURE")])
def test_a_command_is_not_signed_for_later(ahead: float, code: str) -> None:
    trust = Trust("board-1", TRUSTED, Memory())
    request = signed("plan/1", wall=WALL + ahead)
    assert verdict(trust, "plan/1", request) == code
    assert verdict(trust, "plan/1", request, now=UNSURE) == "", "a clock that may be wrong decides over nothing"


def test_a_lifetime_is_bounded_for_what_other_controllers_sign_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signing, "MAX_LIFETIME_S", 1e9)
    request = signed("plan/1", expires_at=rfc3339(WALL + 8 * 86400))
    monkeypatch.undo()
    assert verdict(Trust("board-1", TRUSTED, Memory()), "plan/1", request) == "BAD_SIGNATURE"


def test_what_was_never_looked_at_uses_no_nonce() -> None:
    request = signed("ping/1")
    assert nonce_of(known("ping/1", request)) is None, "somebody could use up the nonces of others"
    for broken in ({"args": {}}, {**request, "sig": 5}, {**request, "expires_at": "x"}):
        assert nonce_of(known("plan/1", broken)) is None
    assert ErrorCode.REPLAYED.retryable is ErrorCode.BAD_SIGNATURE.retryable is False


class Replays(RuleBasedStateMachine):
    """Whatever happens to clock, journal and agent, what was accepted once is never accepted again."""

    def __init__(self) -> None:
        super().__init__()
        self.clock, self.synchronized, self.number = 0, True, 0
        self.accepted: dict[str, Command] = {}
        self.journal: dict[str, Command] = {}
        self.nonces: dict[str, float] = {}
        self.floor = float("-inf")
        self.restart()

    @property
    def now(self) -> Now:
        return Now(WALL + self.clock, 0.0, self.synchronized)

    @rule()
    def restart(self) -> None:
        self.trust = Trust("board-1", TRUSTED, Memory(dict(self.nonces), self.floor))

    @rule(clock=st.integers(-4000, 8000), synchronized=st.booleans())
    def set_clock(self, clock: int, synchronized: bool) -> None:
        self.clock, self.synchronized = clock, synchronized

    @rule(lifetime=st.integers(1, 5000), issued=st.integers(-3000, 5000))
    def command(self, lifetime: int, issued: int) -> None:
        self.number += 1
        label = f"plan/{self.number}"
        sig = {"key": PUBLIC.id, "nonce": f"{self.number:032}", "value": "x"}
        request = {"issued_at": WALL + issued, "expires_at": WALL + issued + lifetime, "sig": sig}
        if self.passes(label, request):
            self.accepted[label] = self.journal[label] = known(label, request)

    @precondition(lambda self: self.journal)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        command = self.journal.pop(data.draw(st.sampled_from(sorted(self.journal))))
        nonce = self.trust.retire(command)
        assert nonce is not None
        self.nonces[nonce.name] = nonce.expires_at

    @rule()
    def tidy(self) -> None:
        until = self.trust.forgettable(self.now)
        if until is not None:
            self.nonces = {name: time for name, time in self.nonces.items() if time > until}
            self.floor = until
        assert len(self.nonces) <= trusts.MAX_NONCES

    def passes(self, label: str, request: dict[str, Any]) -> bool:
        expired = self.synchronized and request["expires_at"] <= self.now.wall  # the intake looks at that itself
        return not expired and verdict(self.trust, label, request, *self.journal.values(), now=self.now) == ""

    @invariant()
    def nothing_passes_twice(self) -> None:
        again = [label for label, command in self.accepted.items() if self.passes(label, command.request)]
        assert again == []


@pytest.mark.usefixtures("_few_nonces")
class TestReplays(Replays.TestCase):  # type: ignore[misc]
    settings = settings(max_examples=60, stateful_step_count=30)


@pytest.fixture
def _few_nonces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let few nonces be kept, and take every signature for a good one: what is looked at is what is remembered."""
    monkeypatch.setattr(trusts, "MAX_NONCES", 4)
    monkeypatch.setattr(signing, "verify", lambda _keys, _op, _device, _id, request: signing.sig_of(request))
