"""What a command prints to: once its reader has gone, as `head` does, it ends without a word."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ParamSpec

P = ParamSpec("P")
READER_GONE = 128 + signal.SIGPIPE
"""The status that shells give programs which end for that reason."""


class _Output:
    """A stream that ends the command where nobody reads it any more. Not by `BrokenPipeError`, which whoever expects an
    `OSError` of files would report."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._read():
            return self._stream.write(text)

    def flush(self) -> None:
        with self._read():
            self._stream.flush()

    @contextlib.contextmanager
    def _read(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            # What is still in the stream has to go somewhere: Python writes it at its end.
            with Path(os.devnull).open("wb") as nowhere:
                os.dup2(nowhere.fileno(), self._stream.fileno())
            raise SystemExit(READER_GONE) from None


def command(main: Callable[P, int]) -> Callable[P, int]:
    """`main`, ended as shells expect it (exit code 141, no message) where the reader of its output goes."""

    @functools.wraps(main)
    def run(*words: P.args, **settings: P.kwargs) -> int:
        with contextlib.redirect_stdout(_Output(sys.stdout)):
            try:
                return main(*words, **settings)
            finally:
                sys.stdout.flush()  # the last lines: a reader may be gone before them

    return run
