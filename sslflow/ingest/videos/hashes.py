"""SHA-256 of files, remembered as long as their size and time stay what they were."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from sslflow.ingest.images.files import regular_file
from sslflow.ingest.records import escape
from sslflow.runtime.files import read_json, write_json


class Hashes:
    """What is remembered is kept in `file`; where that is missing or broken, all is read anew."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known: dict[str, list] = {}
        self._seen: dict[str, list] = {}
        with suppress(OSError, ValueError):
            self._known = dict(read_json(file))

    def of(self, file: Path) -> tuple[str, int]:
        """Hash, in hexadecimal, and size in bytes. Raises `Refused` for what is not a readable file."""
        with regular_file(file) as handle:
            facts = os.fstat(handle.fileno())
            mark = [facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns]
            name = escape(os.fspath(file.absolute()))
            former = self._known.get(name, [])
            digest = former[-1] if former[:-1] == mark else hashlib.file_digest(handle, "sha256").hexdigest()
        self._seen[name] = [*mark, digest]
        return digest, facts.st_size

    def save(self) -> None:
        """Keep the hashes that were asked for, and no others."""
        write_json(self._file, self._seen)
