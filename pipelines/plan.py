"""What would run, and why: read from DVC, with nothing run and nothing written."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dvc.dependency.param import ParamsDependency
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.stage import PipelineStage
from dvc.utils.serialize import load_path

from sslflow.settings.params import FILE, closest, load, lookup

State = Literal["fresh", "stale", "pending"]
MARKS: dict[State, str] = {"fresh": " ", "stale": "*", "pending": "?"}
SAID: dict[State, str] = {"fresh": "up to date", "stale": "will run", "pending": "may run"}
NEVER = "never ran"
PIPELINE = "dvc.yaml"
LOOKS = "looks every time whether the images have changed"


@dataclass(frozen=True)
class Planned:
    """One stage of a plan."""

    name: str
    after: tuple[str, ...]
    """Stages of the plan whose outputs it reads."""
    state: State
    """`fresh`: up to date. `stale`: will run. `pending`: runs if what its upstream makes turns out different."""
    reasons: tuple[str, ...]
    """In plain words, most telling first; none where it is fresh."""
    always: bool = False
    """Whether it runs every time, to look at what DVC does not: what it then makes decides about the stages below."""
    command: str = ""
    """What it runs in the project's folder, of a stage that runs every time; empty where it runs in another folder."""
    outs: tuple[str, ...] = ()
    """What it writes, relative to the project's folder."""

    @property
    def only_looks(self) -> bool:
        """Whether it runs for no other reason; most likely nothing below will."""
        return self.reasons == (LOOKS,)


class PlanError(ValueError):
    """The pipeline can't be read: no dvc.yaml, a mistake in it, a target that doesn't exist."""


def plan(targets: Sequence[str] = (), folder: Path = Path()) -> list[Planned]:
    """The stages that `targets` (names, or groups such as `pretrain`; none: all) need, upstream first.

    Raises `PlanError` for what DVC can't read and for unknown targets, `ParamsError` for a params.yaml that is none.
    """
    if (folder / FILE).exists():
        load(folder / FILE)  # of which DVC would say less
    try:
        with Repo(str(folder)) as repo:
            # What `dvc add` keeps has nothing to run.
            stages = {str(stage.addressing): stage for stage in repo.index.stages if isinstance(stage, PipelineStage)}
            upstream = {
                name: tuple(sorted({above.addressing for above in repo.index.graph.successors(stage)} & stages.keys()))
                for name, stage in stages.items()
            }
            planned: dict[str, Planned] = {}
            seen = _Seen()
            for name in _needed(targets, upstream, folder):
                above = [
                    planned[key]
                    for key in upstream[name]
                    if planned[key].state != "fresh" and not planned[key].only_looks
                ]
                remade = {str(out) for stage in above for out in stages[stage.name].outs}
                own = tuple(_reasons(stages[name], remade, seen))
                waits = tuple(f"upstream {it.name} {'will' if it.state == 'stale' else 'may'} run" for it in above)
                state: State = "stale" if own else "pending" if waits else "fresh"
                reasons = own if own == (NEVER,) else own + waits
                always = _always(stages[name])
                planned[name] = Planned(
                    name,
                    upstream[name],
                    state,
                    reasons,
                    always,
                    _command(stages[name], repo.root_dir) if always else "",
                    tuple(repo.fs.relpath(out.fs_path, repo.root_dir) for out in stages[name].outs),
                )
            return list(planned.values())
    except DvcException as error:
        raise PlanError(" ".join(str(error).split())) from error
    except sqlite3.OperationalError as error:
        raise PlanError(
            f"DVC can't write what it notes of files ({error}): the disk is full, or can't be written to"
        ) from error


def text(stages: Sequence[Planned]) -> Iterator[str]:
    """A line for each stage, its reasons after it, and how many there are."""
    width = max((len(stage.name) for stage in stages), default=0)
    for stage in stages:
        why = f"  {stage.reasons[0]}" if stage.reasons else ""
        more = f" (and {len(stage.reasons) - 1} more)" if len(stage.reasons) > 4 else ""
        yield f"{MARKS[stage.state]} {stage.name:<{width}}  {SAID[stage.state]:<10}{why}{more}".rstrip()
        for reason in stage.reasons[1:] if not more else ():
            yield f"  {'':<{width}}  {'':<10}  {reason}"
    counts = [f"{sum(stage.state == state for stage in stages)} {said}" for state, said in SAID.items()]
    yield f"{len(stages)} stages: {', '.join(counts)}"


def outputs(folder: Path = Path()) -> list[str]:
    """Paths of all that the stages of the pipeline write, relative to `folder`."""
    with Repo(str(folder)) as repo:
        return [repo.fs.relpath(out.fs_path, repo.root_dir) for stage in repo.index.stages for out in stage.outs]


def _needed(targets: Sequence[str], upstream: dict[str, tuple[str, ...]], folder: Path) -> list[str]:
    """The targets and all above them, each after what it needs, else in the order of dvc.yaml."""
    chosen: list[str] = []
    for target in targets or upstream:
        named = [name for name in upstream if target in (name, group(name))]
        if not named:
            if empty := _empty(target, folder):
                raise PlanError(f"stage '{target}' has nothing to do: {empty} in {FILE} is empty")
            raise PlanError(f"there is no stage '{target}'{closest(target, {*upstream, *map(group, upstream)})}")
        chosen += named
    ordered: dict[str, None] = {}

    def visit(name: str) -> None:
        if name not in ordered:
            for above in upstream[name]:
                visit(above)
            ordered[name] = None

    for name in chosen:
        visit(name)
    return list(ordered)


def _empty(target: str, folder: Path) -> str:
    """The list of params.yaml for whose entries dvc.yaml has this group of stages, where there are none."""
    stage = lookup(load(folder / PIPELINE), f"stages.{target}")
    lists = re.findall(r"\$\{([^}]+)\}", str(stage.get("matrix") or stage.get("foreach")))
    params = load(folder / FILE)

    def content(name: str) -> Any:
        section, _, key = name.rpartition(".")
        return (lookup(params, section) if section else params).get(key)

    return next((name for name in lists if not content(name)), "")


def group(name: str) -> str:
    """The part of a stage's name that all items of its matrix share: `pretrain` of `pretrain@simclr-0`."""
    return name.partition("@")[0]


def heights(stages: Sequence[Planned]) -> dict[str, int]:
    """Number of stages on the longest way down from each one."""
    height = dict.fromkeys((stage.name for stage in stages), 0)
    for stage in reversed(stages):
        for above in stage.after:
            height[above] = max(height[above], height[stage.name] + 1)
    return height


class _Seen:
    """What has been read for one plan: DVC would parse params.yaml and hash a folder again for each stage."""

    def __init__(self) -> None:
        self._params: dict[str, Any] = {}
        self._status: dict[tuple[str, Any], dict[str, str]] = {}

    def status(self, dependency: Any) -> dict[str, str]:
        key = (dependency.fs_path, dependency.hash_info)
        if key not in self._status:
            self._status[key] = dependency.status()
        return self._status[key]

    def params(self, dependency: ParamsDependency) -> dict[str, Any]:
        path = dependency.fs_path
        if path not in self._params:
            self._params[path] = load_path(path, dependency.fs) if dependency.isfile() else {}
        found = {section: _at(self._params[path], section) for section in dependency.params}
        # DVC knows more ways to name a setting, such as an index into a list, and what to say about a missing file.
        return dependency.read_params() if _Absent in found.values() else found


def _at(content: Any, dotted: str) -> Any:
    for key in dotted.split("."):
        if not isinstance(content, dict) or key not in content:
            return _Absent
        content = content[key]
    return content


def _command(stage: Any, root: str) -> str:
    lines = stage.cmd if isinstance(stage.cmd, list) else [stage.cmd]
    return "\n".join(lines) if stage.wdir == root else ""


def _reasons(stage: Any, remade: set[str], seen: _Seen) -> Iterator[str]:
    """Why DVC would run this stage now; what upstream stages are about to write, `remade`, does not count."""
    if all(not out.hash_info for out in stage.outs) and stage.outs:
        yield NEVER
        return
    if stage.cmd_changed:
        yield "changed: its command"
    for dependency in stage.deps:
        if isinstance(dependency, ParamsDependency):
            yield from _params(dependency, seen)
        else:
            for path, state in seen.status(dependency).items():
                if not any(path == made or made.startswith(f"{path}/") for made in remade):
                    yield f"{'missing' if state == 'deleted' else 'changed'}: {path}"
    for out in stage.outs:
        for path, state in out.status().items():
            yield f"{'output was changed' if state == 'modified' else 'output is missing'}: {path}"
    if _always(stage):
        yield LOOKS


def _always(stage: Any) -> bool:
    return bool(stage.always_changed or stage.is_callback)


def _params(dependency: ParamsDependency, seen: _Seen) -> Iterator[str]:
    """Settings that are not what they were, leaf by leaf."""
    before: Any = dependency.hash_info.value or {}
    now = seen.params(dependency)
    for section in dependency.params:
        yield from _difference(section, before.get(section, _Absent), now.get(section, _Absent))


class _Absent:
    """Stands for a setting that is not there, which is not the same as one that is null."""


def _difference(name: str, before: Any, now: Any) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*before, *(key for key in now if key not in before)]:
            yield from _difference(f"{name}.{key}", before.get(key, _Absent), now.get(key, _Absent))
    elif before is _Absent and now is not _Absent:
        yield f"param {name} added: {_shown(now)}"
    elif now is _Absent and before is not _Absent:
        yield f"param {name} removed (was {_shown(before)})"
    elif _plain(before) != _plain(now):
        yield f"param {name} {_shown(before)} → {_shown(now)}"


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _shown(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(_plain(value)) or "''"
    return text if len(text) <= 60 else text[:57] + "…"
