"""How every stage starts and ends: settings in, an exit status and plain words out."""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from sslflow import stagelog

NO_MEMORY = re.compile(r"MemoryError|[Oo]ut of memory|can't allocate memory|Unable to allocate")
LOST = re.compile(
    r"[Cc]onnection (reset|closed|refused)|[Bb]roken pipe|NCCL|[Gg]loo|c10d|TCPStore|[Tt]imed out waiting"
)
"""What torch says where another process of the run has ended, or can't be reached."""
GONE = (
    "another of the {} processes has ended, or can't be reached; torchrun says below which, and why. Started again, or "
    "by torchrun itself with --max-restarts 3 in run.launch, training goes on from its last checkpoint"
)
LESS = (
    "there is too little memory; a smaller batch_size (with accumulate, in parts), image_size or encoder needs less, "
    "and so do fewer stages side by side (--jobs 1)"
)


def run(main: Callable[..., None], *arguments: Callable[[str], object]) -> None:
    """Call `main` with the command line's words, each converted by its entry in `arguments`, and exit 0, 1 or 130.

    What a user can mend (`ValueError`, `OSError`, too little memory) is one message with no traceback;
    `SSLFLOW_TRACEBACK=1` shows it in full.
    """
    stage = main.__module__ if main.__module__ != "__main__" else Path(sys.argv[0]).stem
    words = sys.argv[1:]
    if len(words) != len(arguments):
        sys.exit(f"{stage}: expected {len(arguments)} arguments, found {len(words)}: {' '.join(words)}")
    with stagelog.stage(stagelog.name_of(stage, words)) as log:
        try:
            main(*(convert(word) for convert, word in zip(arguments, words, strict=True)))
        except KeyboardInterrupt:
            print(f"{stage}: stopped", file=sys.stderr)
            log.ended(130, "stopped")
            sys.exit(130)
        except (ValueError, OSError, MemoryError, RuntimeError) as error:
            full = isinstance(error, (MemoryError, RuntimeError)) and bool(
                NO_MEMORY.search(f"{type(error).__name__} {error}")
            )
            processes = os.environ.get("WORLD_SIZE", "1")
            lost = isinstance(error, RuntimeError) and processes != "1" and bool(LOST.search(str(error)))
            said = (
                f"{' '.join(str(error).split())[:200]}: {LESS}" if full else GONE.format(processes) if lost else error
            )
            log.ended(1, str(said))
            if os.environ.get("SSLFLOW_TRACEBACK") or (isinstance(error, RuntimeError) and not full and not lost):
                raise
            frame = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(frame.filename).name}:{frame.lineno}"
            print(
                f"{stage}: error: {said}\n  (raised at {where}; SSLFLOW_TRACEBACK=1 shows the whole way)",
                file=sys.stderr,
            )
            sys.exit(1)
        except BaseException as error:
            log.ended(1, f"{type(error).__name__}: {error}")
            raise
        log.ended(0)
