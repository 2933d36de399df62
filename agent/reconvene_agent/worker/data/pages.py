"""Pages of a file that is mapped into memory, given back before they add up.

They are the system's to take away at any time, yet they count as resident memory, which training is measured by.
"""

from __future__ import annotations

import mmap

# The kernel maps as much around a page that is read, where it has that at hand as one large page.
AROUND = 2 << 20
KEPT_BYTES = 16 << 20
AT_ONCE = 4
"""Pieces that are read before they are counted."""


class Pages:
    """The mapped pages of one file, and an upper bound on how many bytes of them may have become resident."""

    def __init__(self, mapping: mmap.mmap) -> None:
        self._mapping = mapping
        self._touched = 0

    def touched(self, pieces: int, size: int) -> None:
        """Note that so many pieces of the file, of ``size`` bytes each, were read; give all back where it is time."""
        self._touched += pieces * (size + AROUND)
        if self._touched >= KEPT_BYTES:
            self.let_go()

    def let_go(self) -> None:
        """Give the pages back. What is read again comes from the file, or from the system's memory of it."""
        self._mapping.madvise(mmap.MADV_DONTNEED)
        self._touched = 0
