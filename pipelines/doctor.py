"""What of DVC and Prefect, as they are set up here, stops or hinders a run."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from dvc.exceptions import DvcException
from dvc.repo import Repo
from packaging.specifiers import SpecifierSet

from pipelines import locks, server
from pipelines.leftovers import find

Said = tuple[Literal["ok", "note", "stops"], str, str]
"""`ok`, `note` or `stops`; what it is about; the words."""
WORKING = {"prefect": ">=3.8,<3.9", "fastapi": ">=0.139,<0.151", "sqlalchemy": ">=2.0,<2.1"}
"""With other versions Prefect is broken in silence: docs/decisions/0005-pins.md."""
NOTHING_YET = "nothing is there: it was never pushed to, or is not what the other machines see (a disk, a bucket)"
ANSWERS_S = 10.0
"""For which a remote may think."""


def findings(folder: Path = Path()) -> Iterator[Said]:
    """What there is to say."""
    yield from _dvc(folder)
    yield from _prefect()


def _dvc(folder: Path) -> Iterator[Said]:
    try:
        repo = Repo(str(folder))
    except DvcException as error:
        yield "stops", "DVC", f"{error}; call it in the project's folder"
        return
    with repo:
        where = Path(repo.cache.local.path)
        place = where if where.exists() else where.parent
        if not os.access(place if place.exists() else folder, os.W_OK):
            yield "stops", "DVC", f"its cache, {where}, can't be written to"
        else:
            yield "ok", "DVC", f"{metadata.version('dvc')}; its cache is {_short(where)}"
        if run := locks.holder(folder):
            yield "ok", "run", f"process {run} is at work in this folder: `sslflow status`"
        try:
            if left := find(folder):
                yield "note", "leftovers", f"of {len(left)} stages that are no longer run: `sslflow clean` names them"
        except ValueError as error:
            yield "stops", "pipeline", str(error)
        yield from _remotes(repo)


def _remotes(repo: Any) -> Iterator[Said]:
    names = dict(repo.config["remote"])
    if not names:
        yield "ok", "remotes", "none: what is made stays on this machine (docs/operate.md)"
    elif not repo.config["core"].get("remote"):
        yield "note", "remotes", f"none is the default: `dvc remote default {next(iter(names))}` makes one"
    for name, settings in names.items():

        def look(name: str = name) -> str:
            remote = repo.cloud.get_remote(name=name)
            return "" if remote.fs.exists(remote.path) else NOTHING_YET

        wrong = _in_time(look)
        where = settings.get("url", "?")
        if wrong == NOTHING_YET:
            yield "note", f"remote {name}", f"{where}: {NOTHING_YET}"
        elif wrong:
            yield "note", f"remote {name}", f"{where}: {wrong}; nothing can be pushed or pulled"
        else:
            yield "ok", f"remote {name}", f"{where} answers"


def _in_time(look: Callable[[], str]) -> str:
    """What a look says, or what went wrong with it."""
    found: list[str] = []

    def run() -> None:
        try:
            found.append(look())
        except Exception as error:  # each kind of remote raises errors of its own
            found.append(" ".join(f"{type(error).__name__}: {error}".split())[:300])

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(ANSWERS_S)
    return found[0] if found else f"no answer within {ANSWERS_S:g} s"


def _prefect() -> Iterator[Said]:
    wrong, there = [], []
    for name, wanted in WORKING.items():
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            version = "none"
        there.append(f"{name} {version}")
        if version == "none" or not SpecifierSet(wanted).contains(version, prereleases=True):
            wrong.append(f"{name} {version} (works: {wanted})")
    if wrong:
        said = f"{', '.join(wrong)}: flows, schedules and deployments don't work, in silence; `make setup` mends it"
        yield "note", "Prefect", f"{said}; `sslflow run` and `dvc repro` do without"
    else:
        yield "ok", "Prefect", ", ".join(there)
    address = os.environ.get("PREFECT_API_URL", "")
    if not address:
        yield "ok", "server", "PREFECT_API_URL is not set: a flow has a server of its own for as long as it runs"
    elif why := server.missing(address):
        yield "note", "server", f"PREFECT_API_URL is {address}: {why}; flows wait for it, `sslflow run` doesn't"
    else:
        yield "ok", "server", f"{address} answers"


def _short(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
