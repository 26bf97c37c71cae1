"""A folder that is either whole or what it was before."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

_FILLED, _FORMER, _DISCARDED = "tmp", "former", "discarded"

_replacing: set[Path] = set()
"""Folders that this process is replacing now."""


@contextlib.contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """An empty folder beside `folder` to write to; on success it takes `folder`'s place, otherwise it is removed.

    Wherever the process is killed, the former or the new folder is whole on the disk. The next call for the same
    `folder` puts a former one back where it was moved aside and the new one had not taken its place, and removes what
    else was left behind; it touches only what processes of this host have left that run no more. A `folder` that is a
    link stays one: what it leads to is replaced. Raises `ValueError` where that isn't there.
    """
    folder = _place(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    for owner in _owners(folder):
        if not _running(owner, folder):
            _tidy(folder, owner)
    owner = f"{socket.gethostname()}.{os.getpid()}"
    filled = _beside(folder, owner, _FILLED)
    filled.mkdir()
    _replacing.add(folder.absolute())
    try:
        yield filled
        if folder.exists():
            folder.rename(_beside(folder, owner, _FORMER))
        filled.rename(folder)
    finally:
        _replacing.discard(folder.absolute())
        _tidy(folder, owner)


def _place(folder: Path) -> Path:
    """Where a folder really lies: on another disk, if a link leads there."""
    if not folder.is_symlink():
        return folder
    place = folder.resolve()
    if not place.is_dir():
        found = "that is no folder" if place.exists() else "which isn't there: mount its disk, or remove the link"
        raise ValueError(f"{folder} is a link to {place}, {found}")
    return place


def refuse_links(folders: Iterable[Path]) -> None:
    """Raises `ValueError` where one of the folders, in which outputs lie, is a link: DVC would find after all the work
    that these are outside of the repository."""
    for folder in folders:
        if folder.is_symlink():
            raise ValueError(
                f"{folder} is a link to {folder.resolve()}, and DVC keeps nothing that lies behind one: put the whole "
                "project on that disk, or DVC's cache (`dvc cache dir`); data/prepared, data/domains/NAME and "
                "data/clips/NAME may be links"
            )


def _beside(folder: Path, owner: str, part: str) -> Path:
    return folder.with_name(f".{folder.name}.{owner}.{part}")


def _owners(folder: Path) -> set[str]:
    """The processes, `<host>.<number>`, that have or had something beside the folder."""
    start = f".{folder.name}."
    names = [file.name.removeprefix(start) for file in folder.parent.iterdir() if file.name.startswith(start)]
    parts = [name.rpartition(".") for name in names]
    return {owner for owner, _, part in parts if part in (_FILLED, _FORMER, _DISCARDED)}


def _tidy(folder: Path, owner: str) -> None:
    """Put the former folder back where there is no other, and remove what else the process has left.

    A former folder gets another name before it is removed: half removed, it must never be put back.
    """
    filled, former, discarded = (_beside(folder, owner, part) for part in (_FILLED, _FORMER, _DISCARDED))
    _remove(discarded)
    if former.exists():
        former.rename(discarded if folder.exists() else folder)
    _remove(discarded)
    _remove(filled)


def _remove(folder: Path) -> None:
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)


def _running(owner: str, folder: Path) -> bool:
    """Whether a process may be at work on the folder. Of another host's, which may share the disk, nobody can tell
    here; a number of its own a process has from one that ran before, unless it is at work on the folder itself."""
    host, _, number = owner.rpartition(".")
    if host != socket.gethostname() or not number.isdecimal():
        return True
    if int(number) == os.getpid():
        return folder.absolute() in _replacing
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is another user's
        return True
    return True
