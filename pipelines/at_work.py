"""Which stages are at work at this moment, whoever started them: DVC writes down who writes what."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from pipelines.plan import Planned
from pipelines.workspace import LOGS

LOCKS = Path(".dvc/tmp/rwlock")


def at_work(stages: Sequence[Planned], folder: Path = Path()) -> list[str]:
    """Names of those of the stages that some process is running now."""
    written: set[Path] = set()
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # DVC may be writing it
        found = json.loads((folder / LOCKS).read_text(encoding="utf-8"))
        written = {Path(path) for path, holder in found["write"].items() if _alive(holder["pid"])}
    here = folder.resolve()
    return [stage.name for stage in stages if written & {here / out for out in stage.outs}]


def last_line(stage: str, folder: Path = Path()) -> str:
    """What a stage that the runner has started said last; empty where nothing is known."""
    with contextlib.suppress(OSError):
        lines = (folder / LOGS / f"{stage}.log").read_text(encoding="utf-8", errors="replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "")
    return ""


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
