"""What the files of a folder hold, as one hash: how a result that is kept knows that its images are the same."""

from __future__ import annotations

import hashlib
from pathlib import Path

from sslflow.ingest.images.folders import visit
from sslflow.ingest.records import escape
from sslflow.runtime.files import sha256


def contents(root: Path) -> str:
    """Hash of the names and bytes of all files below a folder, in hexadecimal; another time, or a copy elsewhere,
    changes nothing. What can't be read counts as that."""
    found = hashlib.sha256()
    for folder in visit(root):
        found.update(f"{escape(folder.path)}\t{folder.same_as}\t{folder.unreadable}\n".encode())
        for name in folder.files:
            found.update(f"{escape(name)}\t{_content(root / folder.path / name)}\n".encode())
    return found.hexdigest()


def _content(file: Path) -> str:
    """Of a regular file: a pipe would keep its reader waiting."""
    try:
        return sha256(file) if file.is_file() else "no file"
    except OSError as error:
        return f"unreadable: {error.strerror}"
