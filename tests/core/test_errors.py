from __future__ import annotations

import pytest

from reconvene_agent.core import errors
from reconvene_agent.core.errors import AgentError, BundleError, ErrorCode, NotRunningError, UsageError


@pytest.mark.parametrize("code", ErrorCode)
def test_every_code_has_an_exit_code_that_means_failure(code: ErrorCode) -> None:
    assert 0 < errors.EXIT_CODES[code] < 256
    assert AgentError("", code).exit_code == errors.EXIT_CODES[code]


def test_a_code_is_spelled_on_the_wire_as_it_is_in_the_source() -> None:
    assert all(code.name == code.value for code in ErrorCode)


def test_what_may_succeed_unchanged_later() -> None:
    assert {code.name for code in ErrorCode if code.retryable} == {
        "BUSY",
        "CLOCK_UNSYNCED",
        "OUTSIDE_WINDOW",
        "THERMAL",
        "NO_MEMORY",
        "NO_DISK",
        "TIMED_OUT",
        "INTERRUPTED",
        "OOM_KILLED",
    }


def test_failures_of_the_command_itself_do_not_share_an_exit_code_with_status() -> None:
    assert errors.EXIT_NOT_RUNNING not in errors.EXIT_CODES.values()


def test_each_kind_of_error_brings_its_code() -> None:
    assert AgentError("x").code is ErrorCode.INTERNAL
    assert UsageError("x").code is ErrorCode.SCHEMA
    assert BundleError("x").code is ErrorCode.BAD_BUNDLE
    assert NotRunningError("x").exit_code == errors.EXIT_NOT_RUNNING
    assert str(UsageError("say it", ErrorCode.ID_REUSED)) == "say it"
