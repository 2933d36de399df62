"""Keeps the releases on disk for the agent: proves what serves before it is told, and switches it when the fleet says so."""

from __future__ import annotations

from pathlib import Path

from reconvene_agent.core import release
from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.core.release import Release
from reconvene_agent.core.shelf import Fall, Shelf, Switch
from reconvene_agent.daemon import effects as do
from reconvene_agent.daemon.events import ReleaseRead, ReleaseSwitched


class Keeper:
    """The releases below ``models``. What was proved is proved again only when a file is another one."""

    def __init__(self, models: Path) -> None:
        self._shelf = Shelf(models)
        self._seals: list[object] | None = None
        self._untrusted = ""

    def read(self) -> ReleaseRead:
        """Look up what serves. A broken release makes room for the one before; what cannot be mended is told."""
        try:
            fell = self._prove() if self._sealed() != self._seals else None
        except (AgentError, OSError) as error:
            self._seals = None
            reason = error.message if isinstance(error, AgentError) else error.strerror or error
            return ReleaseRead(self._current(), f"the releases in {self._shelf.models} cannot be kept: {reason}")
        if self._untrusted:
            return ReleaseRead(None, self._untrusted)
        standing = self._shelf.fall
        return ReleaseRead(self._current(), "" if standing is None else _told(standing), fell)

    def _prove(self) -> Fall | None:
        """Prove what serves, and note by what its files are known again."""
        self._untrusted = ""
        fell = None
        try:
            self._shelf.sweep_half_written()
            fell = self._shelf.check()
        except AgentError as error:
            if error.code is not ErrorCode.VERIFY_FAILED:
                raise
            self._untrusted = f"no model can be trusted: {error.message}; specialize again"
        self._seals = self._sealed()
        return fell

    def switch(self, effect: do.SwitchRelease) -> ReleaseSwitched:
        """Do what a command asks for; once, however often it is asked for under the same name."""
        try:
            switch = self._switched(effect)
        except AgentError as error:
            return ReleaseSwitched(effect.label, None, error.code, error.message)
        except OSError as error:
            detail = f"the releases in {self._shelf.models} cannot be switched: {error.strerror or error}"
            return ReleaseSwitched(effect.label, None, ErrorCode.INTERNAL, detail)
        return ReleaseSwitched(effect.label, switch)

    def _switched(self, effect: do.SwitchRelease) -> Switch:
        if isinstance(effect.to, int):
            return self._shelf.rollback(effect.to, effect.by)
        return self._shelf.promote(effect.to, effect.by)

    def _current(self) -> Release | None:
        return release.current(self._shelf.models)

    def _sealed(self) -> list[object]:
        """Return what tells the files of what serves, and of what served before, from all others."""
        return [self._shelf.serving, *(_seal(self._shelf.models / version / release.ONNX) for version in self._shelf.served)]


def _seal(file: Path) -> tuple[object, ...]:
    try:
        facts = file.stat()
    except OSError:
        return (file,)
    return file, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns


def _told(fall: Fall) -> str:
    """Return the one line for the alarm."""
    what = f"release {fall.broken} is broken ({fall.flaw}): {fall.after} serves in its place"
    return f"{what}; specialize again, or promote another"
