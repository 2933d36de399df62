from __future__ import annotations

import sys
import types

import msgspec
import pytest

from reconvene_agent import __version__
from reconvene_agent.worker import inspection


def test_each_library_is_told_of_before_it_is_touched(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = types.ModuleType("good_library"), "module_that_is_not_there"
    good.__version__ = "1.2"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, good.__name__, good)
    monkeypatch.setattr(inspection, "LIBRARIES", {good.__name__: "numpy", bad: bad})
    assert inspection.main() == 0
    first, *lines, last = (msgspec.json.decode(line) for line in capsys.readouterr().out.splitlines())
    assert first == {"python": sys.version.split()[0], "agent": __version__}
    assert lines == [
        {"importing": good.__name__, "distribution": "numpy", "wanted": inspection.wanted()["numpy"]},
        {"version": "1.2"},
        {"importing": bad, "distribution": bad, "wanted": ""},
        {"missing": bad},
    ]
    assert last["peak_mb"] > 1


def test_what_is_wanted_is_what_the_package_asks_for() -> None:
    found = inspection.wanted()
    assert set(found) == set(inspection.LIBRARIES.values()), "every library of the worker is looked at, and no other"
    assert set(found["torch"].split(",")) == {">=2.6", "<3"}


def test_a_checkout_that_is_not_installed_wants_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unknown(_name: str) -> list[str]:
        raise inspection.metadata.PackageNotFoundError

    monkeypatch.setattr(inspection.metadata, "requires", unknown)
    monkeypatch.setattr(inspection, "LIBRARIES", {"json": "json"})
    assert inspection.main() == 0
    assert '"wanted": ""' in capsys.readouterr().out
