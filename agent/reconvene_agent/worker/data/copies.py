"""Files with the same content: of copies one is kept, and where they lie in two classes, none is to be believed."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence

from reconvene_agent.worker.data.listing import Entry
from reconvene_agent.worker.data.skipped import Skipping


def without(entries: Sequence[Entry], skipping: Skipping, most_bytes: int, check: Callable[[int, Entry], None]) -> list[Entry]:
    """Return the entries but for copies and contradictions, which are counted; of a copy in both parts the held-out one stays.

    Only files of equal size are read for that, and none above ``most_bytes``. ``check`` is called for each of them.
    """
    sizes: defaultdict[int, list[Entry]] = defaultdict(list)
    for entry in entries:
        sizes[entry.size].append(entry)
    suspects = [entry for size, some in sizes.items() if len(some) > 1 and 0 < size <= most_bytes for entry in some]
    same: defaultdict[bytes, list[Entry]] = defaultdict(list)
    for index, entry in enumerate(suspects):
        check(index, entry)
        try:
            same[_digest(entry)].append(entry)
        except OSError:
            continue  # whoever reads it next says so
    dropped: set[str] = set()
    for some in same.values():
        if len(some) < 2:
            continue
        classes = {entry.label for entry in some}
        # "val" comes after "train" and after nothing; otherwise the first by name stays.
        kept = max(some, key=lambda entry: entry.root == "val")
        for entry in some:
            if len(classes) > 1:
                other = next(each for each in some if each.label != entry.label)
                skipping.skip("contradiction", entry.name, f"the same as {other.name}, in another class")
            elif entry is not kept:
                skipping.skip("duplicate", entry.name, f"the same as {kept.name}")
            else:
                continue
            dropped.add(entry.name)
    return [entry for entry in entries if entry.name not in dropped]


def _digest(entry: Entry) -> bytes:
    digest = hashlib.sha256()
    with entry.path.open("rb") as file:
        while piece := file.read(1 << 17):
            digest.update(piece)
    return digest.digest()
