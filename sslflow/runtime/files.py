"""Files that are either whole or absent, and hashes of what they hold."""

from __future__ import annotations

import contextlib
import csv
import filecmp
import hashlib
import json
import math
import os
import socket
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import psutil

from sslflow import paths

Kind = TypeVar("Kind", dict, list, float)


@contextlib.contextmanager
def replacing(file: Path, *, if_different: bool = False) -> Iterator[Path]:
    """A temporary path beside `file` to write to; on success it is synced to the disk and takes `file`'s place.

    With `if_different`, a `file` that holds the same bytes is left as it is, its time included. Whatever goes wrong
    (full disk, Ctrl-C), `file` keeps what it held before. Whoever may read other new files may read it, too.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(file.parent.absolute())
    # Two machines that share a disk may well have a process of the same number.
    temporary = file.with_name(f".{file.name}.{socket.gethostname()}.{os.getpid()}.tmp")
    mode = usual_mode(temporary)
    try:
        yield temporary
        temporary.chmod(mode)
        if if_different and file.exists() and filecmp.cmp(temporary, file, shallow=False):
            return
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


@cache
def _remove_leftovers(folder: Path) -> None:
    """Once a process: what processes of this machine that were killed left there of files that they were writing."""
    for file in folder.glob(f".*.{socket.gethostname()}.*.tmp"):
        number = file.suffixes[-2][1:]
        if number.isdigit() and not psutil.pid_exists(int(number)):
            file.unlink(missing_ok=True)


def usual_mode(file: Path) -> int:
    """Who may read and write a new `file`, as the umask says; safetensors lets nobody but the owner."""
    file.unlink(missing_ok=True)
    file.touch()
    try:
        return stat.S_IMODE(file.stat().st_mode)
    finally:
        file.unlink()


def write_text(file: Path, text: str) -> None:
    """Replace `file` by `text` in UTF-8."""
    with replacing(file) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(file: Path, content: Any) -> None:
    """Replace `file` by sorted, indented JSON; a NaN or an infinity is an error."""
    write_text(file, json.dumps(content, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n")


def write_metrics(file: Path, metrics: Mapping[str, float]) -> None:
    """Replace `file` by a flat JSON object of finite numbers. Raises `ValueError` naming what is not finite."""
    wrong = [name for name, value in metrics.items() if not math.isfinite(value)]
    if wrong:
        raise ValueError(f"{file}: not a finite number: {', '.join(wrong)}")
    write_json(file, {name: value if isinstance(value, int) else float(value) for name, value in metrics.items()})


@contextlib.contextmanager
def reading(file: Path) -> Iterator[None]:
    """Around what reads `file`: whatever goes wrong, but that it isn't there or may not be read, is a `ValueError` that
    names the file and the stage that makes it anew."""
    try:
        yield
    except (FileNotFoundError, PermissionError, IsADirectoryError, MemoryError):
        raise
    except Exception as error:
        # A reader of another library may stumble over a file that was cut with an error of any kind.
        words = " ".join(str(error).split()) or type(error).__name__
        found = f"missing {words}" if isinstance(error, KeyError) else words
        stage = paths.maker(file)
        mend = f"`dvc repro {stage}` makes it anew" if stage else "put a whole one in its place"
        raise ValueError(f"{file}: damaged, or of another version of sslflow ({found}); {mend}") from None


def read_json(file: Path, kind: type[Kind] = dict) -> Kind:
    """What the JSON file holds, an object unless another `kind` is asked for. Raises `ValueError` for anything else."""
    with reading(file):
        found = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(found, kind):
            raise TypeError(f"expected {kind.__name__}, found {type(found).__name__}")
        return found


def read_csv(file: Path, columns: Collection[str] = ()) -> list[dict[str, str]]:
    """The rows of a table that `write_csv` wrote, by column. Raises `ValueError` where it isn't whole, or lacks one of
    the `columns`."""
    with reading(file), file.open(newline="", encoding="utf-8") as handle:
        text = handle.read()
        header, *rows = csv.reader(text.splitlines(keepends=True), strict=True)
        if not text.endswith("\n") or any(len(row) != len(header) for row in rows):
            raise ValueError("it ends within a line")
        if missing := set(columns) - set(header):
            raise KeyError(", ".join(sorted(missing)))
        return [dict(zip(header, row, strict=True)) for row in rows]


def write_csv(file: Path, header: Sequence[str], rows: Iterable[Sequence[Any]], *, if_different: bool = False) -> None:
    """Replace `file` by a comma-separated table with a header line; with `if_different`, unless it is the same."""
    with (
        replacing(file, if_different=if_different) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as handle,
    ):
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def sha256(file: Path) -> str:
    """Hash of a file's bytes, in hexadecimal, read in pieces."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
