"""A process that spools is killed at any moment: what it was told is kept is there, in order, and no number comes twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

from support.spools import numbers, open_spool, waiting

KILLS = 50

# Imports once; then, for each line, forks a writer that tells its number, and, until it is killed, what it appends when that is
# done and what it removes before that.
_WRITERS = """
import os, random, sys
from pathlib import Path
from reconvene_agent.core.config import TelemetrySection
from reconvene_agent.daemon.effects import Record
from reconvene_agent.daemon.storage.spool import Spool

def write(life):
    os.write(1, b"*%d\\n" % os.getpid())
    draw = random.Random(life)
    spool = Spool(Path(sys.argv[1]), "boot", TelemetrySection(spool_bytes=1 << 30, spool_min_free_bytes=0))
    number = 0
    while True:
        batch = range(number, number + draw.randrange(1, 6))
        kinds = [draw.choice(("measurement", "event")) for _ in batch]
        filler = "x" * draw.choice((10, 300, 6000))
        spool.append([Record(kind, kind, {"life": life, "n": n, "filler": filler}) for n, kind in zip(batch, kinds)])
        number = batch.stop
        first = spool.last + 1 - len(batch)
        os.write(1, b"".join(b"+%d %d %d\\n" % (first + index, life, n) for index, n in enumerate(batch)))
        if draw.random() < 0.3:
            gone = [record.seq for record in spool.after(0, draw.randrange(1, 9), 1 << 20)]
            os.write(1, b"".join(b"-%d\\n" % seq for seq in gone))
            spool.remove(gone)

for life, _ in enumerate(sys.stdin):
    if (pid := os.fork()) == 0:
        write(life)
    os.waitpid(pid, 0)
    os.write(1, b".\\n")
"""


class Writers:
    """Writers on one spool, one after the other."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._say, self._words = process.stdin, process.stdout
        self.kept: dict[int, tuple[int, int]] = {}
        """By its number, every record that ``append`` has returned for: whose it is, and which."""
        self.removed: set[int] = set()

    def live(self, enough: int) -> None:
        """Let a writer live until it has told of ``enough`` records, and kill it in whatever it does then."""
        self._say.write("\n")
        pid = int(self._words.readline()[1:])
        told = 0
        if not enough:
            os.kill(pid, signal.SIGKILL)
        while (word := self._words.readline()) != ".\n":
            numbers = [int(part) for part in word[1:].split()]
            if word[0] == "-":
                self.removed.add(numbers[0])
                continue
            assert numbers[0] not in self.kept
            self.kept[numbers[0]] = (numbers[1], numbers[2])
            told += 1
            if told == enough:
                os.kill(pid, signal.SIGKILL)


def test_fifty_kills_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    draw = random.Random(0)
    path = tmp_path / "spool.db"
    with subprocess.Popen(
        [sys.executable, "-c", _WRITERS, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        writers = Writers(process)
        for life in range(KILLS):
            writers.live(draw.choice((0, 1, draw.randrange(300))))
            if life % 5 == 4:  # else the next writer is the first one to find what the last one left
                spool = open_spool(path, spool_bytes=1 << 30)
                found = {document["seq"]: (document["life"], document["n"]) for document in waiting(spool)}
                assert list(found) == sorted(found) == numbers(spool)
                assert spool.dropped == 0
                spool.close()
                for seq, record in writers.kept.items():
                    assert found.get(seq, record if seq in writers.removed else None) == record
        assert len(writers.kept) > 1000
        assert writers.removed & set(writers.kept)
        process.stdin.close()  # type: ignore[union-attr]
