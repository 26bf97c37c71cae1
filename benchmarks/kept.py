"""What benchmarks keep from run to run, as long as it would be made of the same."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sslflow.runtime.files import sha256, write_text

ROOT = Path(__file__).resolve().parent.parent


def make(place: Path, made_of: Any, rooms: tuple[str, ...], build: Callable[[], object]) -> None:
    """Have `build` write the file or folder `place`, unless it is there and was made of the same settings `made_of`, by
    the same code of these `rooms` of sslflow, from the same samples."""
    files = [file for room in rooms for file in sorted((ROOT / "sslflow" / room).rglob("*.py"))]
    files += sorted((ROOT / "data/samples").rglob("*.parquet")) + sorted((ROOT / "data/samples").rglob("*-ubyte.gz"))
    content = json.dumps([made_of, [sha256(file) for file in files]], sort_keys=True, default=str)
    found, mark = hashlib.sha256(content.encode()).hexdigest(), place.with_name(f"{place.name}.made_of")
    if place.exists() and mark.exists() and mark.read_bytes() == found.encode():
        return
    mark.unlink(missing_ok=True)
    if place.is_dir():
        shutil.rmtree(place)
    place.unlink(missing_ok=True)
    build()
    write_text(mark, found)
