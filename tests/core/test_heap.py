from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reconvene_agent.core import heap


@given(st.dictionaries(st.sampled_from(["PATH", heap.VARIABLE]), st.text("abc.=:0", min_size=1)))
def test_an_application_gets_the_environment_as_it_was(environment: dict[str, str]) -> None:
    assert heap.as_usual(heap.kept_together(environment)) == environment
    assert heap.as_usual(environment) == environment


def test_what_the_owner_has_set_counts() -> None:
    kept = heap.kept_together({heap.VARIABLE: "glibc.malloc.arena_max=4"})[heap.VARIABLE]
    assert kept.endswith(":glibc.malloc.arena_max=4")  # of two values for one name, the last counts
