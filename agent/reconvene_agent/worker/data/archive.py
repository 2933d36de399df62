"""An ``.npz`` file read array by array, some rows at a time, so that its size costs no memory. Nothing in it is unpickled."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from reconvene_agent.core.errors import AgentError, ErrorCode

CHUNK_BYTES = 4 << 20


@dataclass(frozen=True)
class Header:
    """What the file says of one of its arrays."""

    name: str
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]


class NpzFile:
    """The arrays of an ``.npz`` file.

    Raises:
        AgentError: BAD_DATA, from every method, where the file is damaged or holds what is no array of numbers.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def headers(self) -> dict[str, Header]:
        """Return what there is, by name."""
        with self._opened() as archive:
            members = [name for name in archive.namelist() if name.endswith(".npy")]
            found = [self._header(archive, member) for member in members]
        return {header.name: header for header in found}

    def array(self, header: Header) -> NDArray[Any]:
        """Return a whole array."""
        return np.concatenate([np.empty((0, *header.shape[1:]), header.dtype), *self.rows(header)])

    def rows(self, header: Header) -> Iterator[NDArray[Any]]:
        """Return an array some rows (N, …) at a time."""
        with self._opened() as archive, archive.open(f"{header.name}.npy") as stream:
            _read_header(stream, header.name)
            size = int(np.prod(header.shape[1:], dtype=np.int64)) * header.dtype.itemsize
            count = header.shape[0]
            # Columns that lie together cannot be taken row by row.
            at_once = count if header.fortran else max(1, CHUNK_BYTES // max(1, size))
            for start in range(0, count, max(1, at_once)):
                some = min(at_once, count - start)
                content = stream.read(some * size)
                if len(content) != some * size:
                    raise ValueError(f"{header.name} is cut short")
                flat = np.frombuffer(content, header.dtype)
                sides = (some, *header.shape[1:])
                yield flat.reshape(sides[::-1]).T if header.fortran else flat.reshape(sides)
            if stream.read(1):  # the end is also where the checksum is compared
                raise ValueError(f"{header.name} is longer than it says")

    def _header(self, archive: zipfile.ZipFile, member: str) -> Header:
        name = member.removesuffix(".npy")
        with archive.open(member) as stream:
            header = _read_header(stream, name)
            size = int(np.prod(header.shape, dtype=object)) * header.dtype.itemsize
            if archive.getinfo(member).file_size != stream.tell() + size:
                raise ValueError(f"{name} does not have the size that it says")
        return header

    @contextmanager
    def _opened(self) -> Iterator[zipfile.ZipFile]:
        # What is raised on a damaged file is any of these.
        try:
            with zipfile.ZipFile(self._path) as archive:
                yield archive
        except (OSError, ValueError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
            text = " ".join(str(error).split())
            raise AgentError(f"{self._path} is not an .npz file that can be used: {text}", ErrorCode.BAD_DATA) from error


def _read_header(stream: IO[bytes], name: str) -> Header:
    version = npy.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"{name} is of version {version[0]}.{version[1]}")
    shape, fortran, dtype = (npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(stream)
    if dtype.hasobject:
        raise ValueError(f"Object arrays cannot be loaded, and {name} is one")
    return Header(name, shape, fortran, dtype)
