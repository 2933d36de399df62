"""The releases below a models folder: which serves, which served before it, and how that changes.

``current`` is what serves. ``shelf.json`` says what served before it, so that a step back leads to what really served. It is
written first; where the two disagree, as after a power cut between them, ``current`` is right. Whoever changes anything holds
the folder's lock.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct

from reconvene_agent.core import atomic, release
from reconvene_agent.core.decoding import from_json
from reconvene_agent.core.errors import AgentError, ErrorCode, UsageError
from reconvene_agent.core.locking import locked

NOTES = "shelf.json"
KEPT_BEHIND_CURRENT = 2
KEPT_REFUSED = 1


class Switch(Struct, frozen=True):
    """A change of what serves. ``by`` names who asked, so that asking again changes nothing."""

    before: str | None
    after: str
    by: str = ""


class Fall(Struct, frozen=True):
    """A release that was found broken, why, and the older one that serves in its place."""

    broken: str
    flaw: str
    after: str


class _Notes(Struct, frozen=True, omit_defaults=True):
    """``served``: the versions that served, oldest first. ``fall`` stands until somebody decides anew what serves."""

    served: tuple[str, ...] = ()
    switch: Switch | None = None
    fall: Fall | None = None


_notes = msgspec.json.Decoder(_Notes)


class Shelf:
    """The releases below ``models``. Reading asks for no lock: every change is one rename."""

    def __init__(self, models: Path) -> None:
        self.models = models

    @property
    def serving(self) -> str | None:
        """The version that ``current`` points at; None when it points at no release."""
        try:
            target = os.readlink(self.models / release.CURRENT)  # noqa: PTH115 - the text of the link itself
        except OSError:
            return None
        return target if target in release.versions(self.models) else None

    @property
    def served(self) -> list[str]:
        """The versions that served and are still there, oldest first; the last one serves, if any does."""
        return self._served(self._read())

    @property
    def fall(self) -> Fall | None:
        """The release that was found broken and replaced by an older one, until somebody decides anew what serves."""
        return self._read().fall

    def find(self, name: str) -> str:
        """Return the version meant by its name, or by its beginning, such as ``r0003``.

        Raises:
            UsageError: there is none, or more than one.
        """
        known = release.versions(self.models)
        if name in known:
            return name
        found = [version for version in known if name and version.startswith(name)]
        if len(found) != 1:
            there = f"there are: {', '.join(known)}" if known else "there are none"
            raise UsageError(f"{name!r} is {'more than one release' if found else 'no release'} in {self.models}; {there}")
        return found[0]

    # --- changes ---------------------------------------------------------------------------------------------------------

    def publish(self, aside: Path, version: str) -> Path:
        """Give a finished release folder its name, let it serve, and sweep. Doing it again is harmless."""
        folder = self.keep(aside, version)
        with self._held():
            self._serve([*self._others(version), version])
            self._sweep()
        return folder

    def keep(self, aside: Path, version: str) -> Path:
        """Give a finished release folder its name, and let serve what serves."""
        folder = self.models / version
        if folder.exists():
            atomic.remove_tree(aside)
        else:
            with atomic.full_disk_is_no_disk(f"storing the release in {self.models}"):
                atomic.sync_tree(aside)
                aside.rename(folder)
                atomic.sync_folder(self.models)
        return folder

    def promote(self, name: str, by: str = "") -> Switch:
        """Let a release serve, whether it earned its place or not.

        Raises:
            UsageError: there is no such release.
            AgentError: VERIFY_FAILED when it is not whole.
        """
        with self._held():
            if (done := self._done(by)) is not None:
                return done
            version = self.find(name)
            flaw = release.flaw(self.models / version)
            if flaw:
                raise AgentError(f"{version} is broken and cannot serve: {flaw}", ErrorCode.VERIFY_FAILED)
            return self._serve([*self._others(version), version], by)

    def rollback(self, steps: int = 1, by: str = "") -> Switch:
        """Let serve what served so many steps before; broken releases are passed over and count as none.

        Raises:
            UsageError: nothing that is whole served so long ago.
        """
        with self._held():
            if (done := self._done(by)) is not None:
                return done
            served = self.served
            older = served if self.serving is None else served[:-1]
            whole = [version for version in older if not release.flaw(self.models / version)]
            if len(whole) < steps:
                have = f"only {len(whole)} of them is whole" if whole else "there is none"
                raise UsageError(
                    f"{self.models} cannot go back {steps} step{'s' * (steps > 1)}: of what served before, {have}; "
                    "'reconvene-agent models list' shows what there is"
                )
            return self._serve(served[: served.index(whole[-steps]) + 1], by)

    def check(self) -> Fall | None:
        """Verify what serves; where it is broken, let the newest whole release that served before it take its place.

        Returns:
            What has just fallen, if anything has.

        Raises:
            AgentError: VERIFY_FAILED when what serves is broken and nothing whole is left; nothing is changed then.
        """
        serving, served = self.serving, self.served
        if not served:
            return None
        flaw = f"{self.models / release.CURRENT} points at no release" if serving is None else self._flaw_of(serving)
        if not flaw:
            return None
        with self._held():
            if self.serving != serving:
                return None  # somebody has just decided anew
            older = served if serving is None else served[:-1]
            after = next((version for version in reversed(older) if not self._flaw_of(version)), None)
            if after is None:
                raise AgentError(f"no release is whole that could serve: {flaw}", ErrorCode.VERIFY_FAILED)
            fall = Fall(serving or release.CURRENT, flaw, after)
            self._serve(served[: served.index(after) + 1], fall=fall)
            return fall

    def sweep(self) -> list[str]:
        """Remove what nobody goes back to, and what was left half-written; return the removed versions.

        Kept are the current release, the two that served before it, newer ones that it was gone back from, and the newest of
        those that were refused. Without a current release nothing but half-written folders is removed.
        """
        with self._held():
            return self._sweep()

    def sweep_half_written(self) -> None:
        """Remove what was left half-written by runs that were killed."""
        if self.models.is_dir():
            with self._held():
                self._sweep_half_written()

    # --- under the lock --------------------------------------------------------------------------------------------------

    def _serve(self, served: list[str], by: str = "", fall: Fall | None = None) -> Switch:
        switch = Switch(self.serving, served[-1], by)
        notes = _Notes(tuple(served), switch if by else None, fall)
        atomic.write_bytes(self.models / NOTES, msgspec.json.encode(notes))
        if switch.before != switch.after:
            atomic.point_link(self.models / release.CURRENT, switch.after)
        return switch

    def _done(self, by: str) -> Switch | None:
        """Return what was done for this very request before, whose last step is done again in case it was cut off."""
        switch = self._read().switch
        if switch is None or not by or switch.by != by or switch.after not in release.versions(self.models):
            return None
        atomic.point_link(self.models / release.CURRENT, switch.after)
        return switch

    def _others(self, version: str) -> list[str]:
        return [each for each in self.served if each != version]

    def _sweep(self) -> list[str]:
        self._sweep_half_written()
        serving, served, present = self.serving, self.served, release.versions(self.models)
        if serving is None:
            return []
        refused = [version for version in present if version not in served and self._refused(version)]
        newer = [version for version in present[present.index(serving) + 1 :] if version not in refused]
        kept = {*served[-1 - KEPT_BEHIND_CURRENT :], *newer, *refused[-KEPT_REFUSED:]}
        removed = [version for version in present if version not in kept]
        for version in removed:
            # Out of sight in one step, so that a folder with a release's name is never half a release.
            aside = self.models / f".{version}.{os.getpid()}.tmp"
            (self.models / version).rename(aside)
            atomic.remove_tree(aside)
        return removed

    def _sweep_half_written(self) -> None:
        atomic.sweep(self.models)
        for path in self.models.iterdir():
            ours = release.is_version(path.name) and path.is_dir() and not path.is_symlink()
            if ours and not (path / release.MANIFEST).exists():
                atomic.remove_tree(path)

    def _flaw_of(self, version: str) -> str:
        return release.flaw(self.models / version)

    def _refused(self, version: str) -> bool:
        try:
            return bool(release.read(self.models / version).refused)
        except UsageError:
            return False

    def _read(self) -> _Notes:
        try:
            return from_json((self.models / NOTES).read_bytes(), _notes.decode)
        except (OSError, msgspec.DecodeError):
            return _Notes()

    def _served(self, notes: _Notes) -> list[str]:
        serving, present = self.serving, release.versions(self.models)
        served = [version for version in notes.served if version in present]
        if serving is None:
            lost = not served and os.path.lexists(self.models / release.CURRENT)
            return [version for version in present if not self._refused(version)] if lost else served
        if serving in served:
            return served[: served.index(serving) + 1]
        if not served:
            # Nobody noted it down: then it is the order in which they were made.
            served = [version for version in present[: present.index(serving)] if not self._refused(version)]
        return [*served, serving]

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Hold the folder against everybody else who changes it."""
        if not self.models.is_dir():
            raise UsageError(f"{self.models} holds no releases: it is no folder")
        with locked(self.models):
            yield
