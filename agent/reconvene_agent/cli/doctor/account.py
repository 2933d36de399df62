"""Whose rights count: the account that the agent runs as, and acting as that account for a moment where we may."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager

from msgspec import Struct

from reconvene_agent.core.topics import SERVICE


class Account(Struct, frozen=True):
    """A user of this board with all its groups."""

    uid: int
    gid: int
    groups: tuple[int, ...]

    @staticmethod
    def of_this_process() -> Account:
        return Account(os.geteuid(), os.getegid(), tuple(sorted(os.getgroups())))

    @staticmethod
    def of_user(uid: int, gid: int | None = None) -> Account:
        """Return a user's account with the groups that the system's databases name."""
        try:
            entry = pwd.getpwuid(uid)
        except KeyError:
            return Account(uid, uid if gid is None else gid, ())
        group = entry.pw_gid if gid is None else gid
        return Account(uid, group, tuple(sorted(os.getgrouplist(entry.pw_name, group))))

    @staticmethod
    def of_service() -> Account | None:
        """Return the account that install.sh makes for the service; None where there is none."""
        try:
            return Account.of_user(pwd.getpwnam(SERVICE).pw_uid)
        except KeyError:
            return None

    @property
    def name(self) -> str:
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return str(self.uid)

    @property
    def group(self) -> str:
        try:
            return grp.getgrgid(self.gid).gr_name
        except KeyError:
            return str(self.gid)

    @property
    def reachable(self) -> bool:
        """Whether this process may act as this account."""
        return os.geteuid() in (0, self.uid)


@contextmanager
def acting_as(account: Account) -> Iterator[None]:
    """Let the block touch files with an account's rights; nothing changes where this process is that account, or may not be."""
    before = Account.of_this_process()
    if before.uid != 0 or account.uid == before.uid:
        yield
        return
    try:
        os.setgroups(account.groups)
        os.setegid(account.gid)
        os.seteuid(account.uid)
        yield
    finally:
        os.seteuid(before.uid)
        os.setegid(before.gid)
        os.setgroups(before.groups)
