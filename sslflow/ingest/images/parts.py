"""What has been examined, on the disk: there workers leave it, also those of other processes and machines that see the
folder, and a run that was stopped leaves it to the next."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import os
import pickle
import shutil
import socket
import struct
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import PIL

from sslflow.ingest.images.decode import Decoded
from sslflow.ingest.images.depth import Depth
from sslflow.ingest.images.examine import Examined, Work, examine
from sslflow.ingest.images.known import Known
from sslflow.ingest.images.raster import Used
from sslflow.ingest.records import Record, Rejected
from sslflow.ingest.shards import Moments

_HEAD = struct.Struct("<16sQQI")
"""Key, length of all that follows, of what of it is no array, and CRC-32."""
_LARGE = 4096
"""Bytes from which the values of an array lie beside the others, and are not copied."""
_ENDING = ".examined"
_KNOWN = {(one.__module__, one.__qualname__): one for one in (Decoded, Depth, Examined, Known, Moments, Rejected, Used)}
_ARRAYS = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy._core.numeric", "_frombuffer"),
}


class Parts:
    """Lists of images that have been examined, each by the key of what it was made of.

    Every worker appends to a file of its own, so that a killed one spoils nothing but what it was just writing.
    """

    def __init__(self, root: Path, work: Work, tidy: bool = True) -> None:
        """`root`: a folder for nothing else. `tidy` removes those in it that were made by other settings, or by another
        version of the code."""
        self._start = _digest(_code(), work)
        self.folder = root / self._start.hex()
        self._places: dict[bytes, tuple[Path, int, int, int, int]] = {}
        self._read: dict[Path, int] = {}
        if tidy and root.is_dir():
            for other in root.iterdir():
                if other != self.folder:
                    shutil.rmtree(other, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.look()
        self.before = frozenset(self._places)
        """Keys of those that another run has left."""

    def key(self, records: Sequence[Record]) -> bytes:
        """128 bits that change with whatever changes the result: settings, code, names, and of files size and time."""
        return _digest(self._start, records)

    def __contains__(self, key: bytes) -> bool:
        return key in self._places

    def look(self) -> None:
        """Take in what has come since."""
        for file in sorted(self.folder.glob(f"*{_ENDING}")):
            at = self._read.get(file, 0)
            size = file.stat().st_size
            if size <= at:
                continue
            with file.open("rb") as handle:
                while at + _HEAD.size <= size:
                    handle.seek(at)
                    key, length, values, crc = _HEAD.unpack(handle.read(_HEAD.size))
                    if at + _HEAD.size + length > size:
                        break  # still being written, or never to be ended
                    self._places.setdefault(key, (file, at + _HEAD.size, length, values, crc))
                    at += _HEAD.size + length
            self._read[file] = at

    def fetch(self, key: bytes) -> list[Examined | Rejected] | None:
        """What was found; None, and forgotten, where it can't be read any more."""
        file, at, length, values, crc = self._places.pop(key)
        with contextlib.suppress(OSError, pickle.UnpicklingError), file.open("rb") as handle:
            handle.seek(at)
            content = memoryview(handle.read(length))
            if zlib.crc32(content, zlib.crc32(key)) == crc:
                return _loaded(content[:values], content[values:])
        return None

    def remove(self) -> None:
        """All of it, once it has served."""
        shutil.rmtree(self.folder.parent, ignore_errors=True)


def examine_into(records: list[Record], key: bytes, *, work: Work, folder: Path) -> None:
    """In a worker: examine the records, and leave the result under its key. Raises `OSError` where the disk is full."""
    arrays: list[pickle.PickleBuffer] = []
    values = pickle.dumps(examine(records, work), protocol=5, buffer_callback=partial(_small, arrays))
    raw = [array.raw() for array in arrays]
    sizes = pickle.dumps([one.nbytes for one in raw])
    crc = zlib.crc32(key)
    for part in (sizes, values, *raw):
        crc = zlib.crc32(part, crc)
    before = len(sizes) + len(values)
    handle = _own_file(folder)
    handle.write(_HEAD.pack(key, before + sum(one.nbytes for one in raw), before, crc))
    for part in (sizes, values, *raw):
        handle.write(part)
    handle.flush()


def _small(arrays: list[pickle.PickleBuffer], one: pickle.PickleBuffer) -> bool:
    """Whether an array stays among the other values: who keeps a large one keeps all that was read with it."""
    if one.raw().nbytes < _LARGE:
        return True
    arrays.append(one)
    return False


def _loaded(values: memoryview, arrays: memoryview) -> list[Examined | Rejected]:
    stream = io.BytesIO(values)
    places = [0]
    for size in _Unpickler(stream).load():
        places.append(places[-1] + size)
    return _Unpickler(stream, buffers=[arrays[a:b] for a, b in pairwise(places)]).load()


@cache
def _own_file(folder: Path) -> BinaryIO:
    descriptor, _ = tempfile.mkstemp(_ENDING, f"{socket.gethostname()}-{os.getpid()}-", folder)
    return os.fdopen(descriptor, "ab")


class _Unpickler(pickle.Unpickler):
    """Makes what `examine` returns, and calls nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ARRAYS:
            return super().find_class(module, name)
        if (module, name) in _KNOWN:
            return _KNOWN[module, name]
        raise pickle.UnpicklingError(f"{module}.{name} is none of what is kept of images")


@cache
def _code() -> bytes:
    """Hash of what decides how pixels come out, but for settings."""
    here = Path(__file__).parent
    files = sorted([*here.glob("*.py"), *here.parent.glob("*.py")])
    return _digest(PIL.__version__, np.__version__, *(file.read_bytes() for file in files))


# Not `runtime.checkpoint.fingerprint`: that needs torch, and is of JSON, which has no bytes, arrays and files' times.
def _digest(*values: object) -> bytes:
    """128 bits of values, the same in every process."""
    found = hashlib.blake2b(digest_size=16)
    for value in values:
        _feed(found, value)
    return found.digest()


def _feed(found: hashlib.blake2b, value: Any) -> None:
    """Each value with its kind and length, so that no two sequences of values look alike."""
    if isinstance(value, (str, int, float, type(None))):
        found.update(f"{type(value).__name__} {value!r};".encode())
    elif isinstance(value, Path):
        try:
            facts = value.stat()
            found.update(f"file {str(value)!r} {facts.st_size} {facts.st_mtime_ns};".encode())
        except OSError as error:
            found.update(f"file {str(value)!r} {error.errno};".encode())
    elif isinstance(value, (tuple, list)):
        found.update(f"{len(value)} values;".encode())
        for one in value:
            _feed(found, one)
    elif isinstance(value, bytes):
        found.update(f"bytes {len(value)};".encode())
        found.update(value)
    elif isinstance(value, np.ndarray):
        _feed(found, (value.dtype.str, value.shape, value.tobytes()))
    elif isinstance(value, partial):
        _feed(found, (value.func, value.args, value.keywords))
    elif isinstance(value, Mapping):
        _feed(found, ("mapping", *sorted(value.items())))
    elif dataclasses.is_dataclass(value):
        _feed(found, (type(value).__qualname__, *(getattr(value, name) for name in value.__dataclass_fields__)))
    else:
        found.update(f"{value.__module__}.{value.__qualname__};".encode())
