"""A file opened for reading, or the reason why it can't be."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path


class Refused(ValueError):
    """Why an image can't be used, in words for `quarantine.csv`."""


HELD = 16 * 2**20
"""Bytes up to which a file is read once, for all that look at it."""


class Held(bytes):
    """What a file of that name holds."""

    name: str


def held(path: Path) -> Held | Path:
    """What the file holds, or the file, where it is large. Raises `Refused` for what can't be read."""
    with regular_file(path) as handle:
        if os.fstat(handle.fileno()).st_size > HELD:
            return path
        try:
            content = Held(handle.read())
        except OSError as error:
            raise Refused(f"not readable: {error.strerror}") from None
    content.name = path.name
    return content


def regular_file(path: Path) -> io.BufferedReader:
    """The file, opened for reading. Raises `Refused` for what can't be read; never waits on a pipe or a device."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise Refused("not there: a link that leads nowhere, or removed meanwhile") from None
    except PermissionError:
        raise Refused("not readable: no permission") from None
    except OSError as error:
        raise Refused(f"not readable: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Refused("not a regular file")
    return os.fdopen(descriptor, "rb")
