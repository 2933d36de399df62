"""What measuring a model told, and how it gets into the plan."""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec

from reconvene_agent.core.measuring import Measurement
from reconvene_agent.core.plan import Candidate


@dataclass(frozen=True)
class Finding:
    """What is known of the models of one shape.

    Attributes:
        measurement: of the latency; None where a verification found too much memory taken before anything was timed.
        repeats: how often it was taken again.
        verified: whether this was the verification of what was about to be chosen.
        memory_mb: of inference, as a fresh process found it.
        failure: why it could not.
    """

    measurement: Measurement | None
    repeats: int = 0
    verified: bool = False
    memory_mb: float | None = None
    failure: str = ""

    def after(self, earlier: Finding | None) -> Finding:
        """Return this finding, with the earlier measurement where it has none of its own."""
        if self.measurement is not None or earlier is None:
            return self
        return replace(self, measurement=earlier.measurement, repeats=earlier.repeats)

    def of(self, candidate: Candidate) -> Candidate:
        """Return the candidate with what was found."""
        found = self.measurement
        return msgspec.structs.replace(
            candidate,
            latency_ms=None if found is None else found.latency,
            conditions=None if found is None else found.conditions,
            repeats=self.repeats,
            doubts=(*(() if found is None else found.doubts), *((self.failure,) if self.failure else ())),
            verified=self.verified,
            memory_measured_mb=self.memory_mb,
        )
