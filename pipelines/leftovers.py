"""What methods and seeds that are no longer run have left behind: entries of dvc.lock and the files that they name."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dvc.utils.serialize import modify_yaml
from ruamel.yaml import YAML

from pipelines import locks
from pipelines.plan import outputs, plan

LOCK = Path("dvc.lock")


@dataclass(frozen=True)
class Leftover:
    """A stage that dvc.lock knows and dvc.yaml no longer has."""

    stage: str
    files: tuple[Path, ...]
    """Its outputs that are still there and that no present stage writes."""


def find(folder: Path = Path()) -> list[Leftover]:
    """All leftovers in the project's folder."""
    lock = folder / LOCK
    if not lock.exists():
        return []
    present = {stage.name for stage in plan(folder=folder)}
    written = {(folder / path).resolve() for path in outputs(folder)}
    root = folder.resolve()
    found = []
    for name, entry in (YAML(typ="safe").load(lock).get("stages") or {}).items():
        if name not in present:
            files = [folder / out["path"] for out in entry.get("outs", ())]
            gone = [
                file
                for file in files
                # A lock file comes with the repository: what it names outside the folder is not ours to remove.
                if file.exists() and file.resolve().is_relative_to(root) and file.resolve() not in {root, *written}
            ]
            found.append(Leftover(name, tuple(gone)))
    return found


def remove(leftovers: list[Leftover], folder: Path = Path()) -> None:
    """Remove the files and the entries. What DVC has cached stays in its cache (`dvc gc` empties that)."""
    for leftover in leftovers:
        for file in leftover.files:
            if file.is_dir() and not file.is_symlink():
                shutil.rmtree(file)
            else:
                file.unlink()
    with modify_yaml(str(folder / LOCK)) as content:
        for leftover in leftovers:
            content["stages"].pop(leftover.stage, None)


def clean(sure: bool) -> Iterator[str]:
    """Say, and where it is `sure` remove, what is no longer in `run.methods` and `run.seeds`."""
    with locks.one_run():
        found = find()
        for leftover in found:
            yield f"{leftover.stage}: {', '.join(map(str, leftover.files)) or 'only its entry in dvc.lock'}"
        if not found:
            yield "nothing is left over"
        elif sure:
            remove(found)
            yield f"removed {len(found)} (DVC's cache keeps them until `dvc gc`)"
        else:
            yield f"{len(found)} left over; `sslflow clean --yes` removes them"
