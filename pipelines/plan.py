"""What would run, and why: read from DVC, with nothing run and nothing written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dvc.dependency.param import ParamsDependency
from dvc.exceptions import DvcException
from dvc.repo import Repo

from sslflow.settings.params import closest

State = Literal["fresh", "stale", "pending"]
NEVER = "never ran"
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

    @property
    def only_looks(self) -> bool:
        """Whether it runs for no other reason; most likely nothing below will."""
        return self.reasons == (LOOKS,)


class PlanError(ValueError):
    """The pipeline can't be read: no dvc.yaml, a mistake in it, a target that doesn't exist."""


def plan(targets: Sequence[str] = (), folder: Path = Path()) -> list[Planned]:
    """The stages that `targets` (names, or groups such as `pretrain`; none: all) need, upstream first.

    Raises `PlanError` for what DVC can't read and for unknown targets.
    """
    try:
        with Repo(str(folder)) as repo:
            upstream = {
                stage.addressing: tuple(sorted(above.addressing for above in repo.index.graph.successors(stage)))
                for stage in repo.index.stages
            }
            stages = {stage.addressing: stage for stage in repo.index.stages}
            planned: dict[str, Planned] = {}
            for name in _needed(targets, upstream):
                above = [
                    planned[key]
                    for key in upstream[name]
                    if planned[key].state != "fresh" and not planned[key].only_looks
                ]
                own = tuple(_reasons(stages[name], {str(out) for stage in above for out in stages[stage.name].outs}))
                waits = tuple(f"upstream {it.name} {'will' if it.state == 'stale' else 'may'} run" for it in above)
                state: State = "stale" if own else "pending" if waits else "fresh"
                reasons = own if own == (NEVER,) else own + waits
                planned[name] = Planned(name, upstream[name], state, reasons, _always(stages[name]))
            return list(planned.values())
    except DvcException as error:
        raise PlanError(" ".join(str(error).split())) from error


def outputs(folder: Path = Path()) -> list[str]:
    """Paths of all that the stages of the pipeline write, relative to `folder`."""
    with Repo(str(folder)) as repo:
        return [repo.fs.relpath(out.fs_path, repo.root_dir) for stage in repo.index.stages for out in stage.outs]


def _needed(targets: Sequence[str], upstream: dict[str, tuple[str, ...]]) -> list[str]:
    """The targets and all above them, each after what it needs, else in the order of dvc.yaml."""
    chosen: list[str] = []
    for target in targets or upstream:
        named = [name for name in upstream if target in (name, name.partition("@")[0])]
        if not named:
            raise PlanError(f"there is no stage '{target}'{closest(target, {*upstream, *map(_group, upstream)})}")
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


def _group(name: str) -> str:
    return name.partition("@")[0]


def _reasons(stage: Any, remade: set[str]) -> Iterator[str]:
    """Why DVC would run this stage now; what upstream stages are about to write, `remade`, does not count."""
    if all(not out.hash_info for out in stage.outs) and stage.outs:
        yield NEVER
        return
    if stage.cmd_changed:
        yield "changed: its command"
    for dependency in stage.deps:
        if isinstance(dependency, ParamsDependency):
            yield from _params(dependency)
        else:
            for path, state in dependency.status().items():
                if not any(path == made or made.startswith(f"{path}/") for made in remade):
                    yield f"{'missing' if state == 'deleted' else 'changed'}: {path}"
    for out in stage.outs:
        for path, state in out.status().items():
            yield f"{'output was changed' if state == 'modified' else 'output is missing'}: {path}"
    if _always(stage):
        yield LOOKS


def _always(stage: Any) -> bool:
    return bool(stage.always_changed or stage.is_callback)


def _params(dependency: ParamsDependency) -> Iterator[str]:
    """Settings that are not what they were, leaf by leaf."""
    before: Any = dependency.hash_info.value or {}
    now = dependency.read_params()
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
    text = f"{value:g}" if isinstance(value, float) else str(_plain(value))
    return text if len(text) <= 60 else text[:57] + "…"
