"""Which commands are believed: signed by a trusted key, in time, for the first time. Pure; nothing is demanded without keys.

What was accepted is remembered by the journal's commands themselves; here is what must be remembered of those it forgets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from reconvene_agent.core.clock import Now
from reconvene_agent.core.errors import ErrorCode, UsageError
from reconvene_agent.core.job import Command
from reconvene_agent.core.messages import OPERATIONS
from reconvene_agent.core.topics import CommandTopic

if TYPE_CHECKING:
    from reconvene_agent.core.keys import PublicKey

MAX_NONCES = 10_000


class Nonce(Struct, frozen=True):
    """A nonce that was used, with its key's id, and when the command that used it expires, in seconds since the epoch."""

    name: str
    expires_at: float


class Memory(Struct, frozen=True):
    """What the journal remembers of signatures.

    Attributes:
        nonces: of commands that it has forgotten; name to ``expires_at``.
        floor: nonces of commands that expired by then are forgotten too, so such a command is refused.
        begun: an earlier journal was lost then, so what was issued by then may have been used.
    """

    nonces: dict[str, float] = {}
    floor: float = float("-inf")
    begun: float = float("-inf")


class Trust:
    """Decides over commands for ``device``; ``keys`` are the trusted ones by their ids."""

    def __init__(self, device: str, keys: Mapping[str, PublicKey], memory: Memory) -> None:
        self._device = device
        self._keys = keys
        self._nonces = dict(memory.nonces)
        self._floor = memory.floor
        self._begun = memory.begun

    def demanded(self, op: str) -> bool:
        """Whether commands of this operation must be signed."""
        return bool(self._keys) and op in OPERATIONS and OPERATIONS[op].guarded

    def check(self, topic: CommandTopic, accepted: Iterable[Command], now: Now, request: Mapping[str, Any]) -> None:
        """Let a new command pass, or not; ``accepted`` are the commands that the journal knows.

        Raises:
            UsageError: BAD_SIGNATURE or REPLAYED; or SCHEMA when its times cannot be read.
        """
        if not self.demanded(topic.op):
            return
        from reconvene_agent.core import signing  # it takes memory, which only agents that trust keys give it

        sig = signing.verify(self._keys, topic.op, self._device, topic.id, request)
        issued, expires = signing.check_lifetime(request)
        if now.synchronized and issued > now.wall + signing.MAX_AHEAD_S:
            raise UsageError("the command was signed for later: issued_at lies in the future", ErrorCode.BAD_SIGNATURE)
        if now.synchronized and expires <= now.wall:
            return  # it is too late for it anyway, and that is the better answer
        used = sig.name in self._nonces or any(nonce.name == sig.name for nonce in map(nonce_of, accepted) if nonce is not None)
        if used or expires <= self._floor or issued <= self._begun:
            why = "was used before" if used else "may have been used before"
            raise UsageError(f"the signature {why}: sign the command again", ErrorCode.REPLAYED)

    def retire(self, command: Command) -> Nonce | None:
        """Remember the nonce of a command that the journal forgets; return what is to be kept of it."""
        nonce = nonce_of(command)
        if nonce is not None:
            self._nonces[nonce.name] = nonce.expires_at
        return nonce

    def forgettable(self, now: Now) -> float | None:
        """Forget the nonces of commands that have expired, or of the first to expire where there are too many.

        Returns the ``expires_at`` up to which they are forgotten. Such a command never passes again, even if the clock goes back.
        """
        times = sorted(self._nonces.values())
        surplus = len(times) - MAX_NONCES
        gone = [time for index, time in enumerate(times) if index < surplus or (now.synchronized and time <= now.wall)]
        if not gone:
            return None
        self._floor = max(self._floor, gone[-1])
        self._nonces = {name: time for name, time in self._nonces.items() if time > self._floor}
        return self._floor


def nonce_of(command: Command) -> Nonce | None:
    """Return the nonce that a command has used; None when it is not signed, or its signature was never looked at."""
    if command.request.get("sig") is None or command.op not in OPERATIONS or not OPERATIONS[command.op].guarded:
        return None
    from reconvene_agent.core import signing

    try:
        return Nonce(signing.sig_of(command.request).name, signing.check_lifetime(command.request)[1])
    except UsageError:
        return None
