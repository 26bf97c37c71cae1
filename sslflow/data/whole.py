"""Shards are known by their hashes, so that a byte that has changed on the disk is found where a shard is opened."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

from sslflow import paths
from sslflow.runtime.files import read_json, sha256, write_json

HASHES = "hashes.json"
MOST = 4 * 2**30
"""Bytes that a process looks at, some seconds of its time; of larger data, the shards that it opens first."""

_whole: dict[tuple[Path, int, int], int] = {}
"""Shards that were whole, by where they lie, when they were last changed and their size; and their bytes."""
_one_at_a_time = threading.Lock()


def write_hashes(folder: Path, hashes: Mapping[str, str]) -> None:
    """Write down the SHA-256 of each shard in the folder, by its name."""
    write_json(folder / HASHES, dict(sorted(hashes.items())))


def require_whole(shard: Path) -> None:
    """Raises `ValueError` where a shard is not there, or not as it was written. One whose hash isn't known passes."""
    listed = shard.parent / HASHES
    if not listed.exists():
        return
    expected, stage = read_json(listed).get(shard.name), paths.maker(shard)
    if not shard.is_file():
        raise ValueError(f"{shard}: missing; `dvc repro {stage}` brings it back")
    facts = shard.stat()
    key = (shard.absolute(), facts.st_ctime_ns, facts.st_size)
    with _one_at_a_time:
        if expected is None or key in _whole or sum(_whole.values()) + facts.st_size > MOST:
            return
        if sha256(shard) != expected:
            # DVC, which goes by a file's time and size, may believe that nothing has changed; but not that it is there.
            raise ValueError(
                f"{shard}: damaged: its bytes are not those that were written; delete it, and `dvc repro {stage}` "
                "brings it back"
            )
        _whole[key] = facts.st_size
