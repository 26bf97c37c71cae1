"""The whole of params.yaml against every stage that reads it, before anything runs."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from ruamel.yaml import YAML

from sslflow import stages
from sslflow.audiovisual.method import names as clip_methods
from sslflow.reporting import leaderboard
from sslflow.settings.params import FILE, ParamsError, closest, load, read
from sslflow.training.method import names


def stage_names() -> list[str]:
    """All stages: the files in `sslflow/stages/`, less the one about how stages start."""
    return sorted(module.name for module in pkgutil.iter_modules(stages.__path__) if module.name != "entry")


def stage_module(stage: str) -> ModuleType:
    """The module of a stage; its `schemas` tells what it reads of params.yaml."""
    return importlib.import_module(f"sslflow.stages.{stage}")


def stage_schemas(stage: str, method: str) -> Mapping[str, Any]:
    """`schemas(method)` of a stage's module, or `schemas()` of one that is the same for all methods."""
    schemas = stage_module(stage).schemas
    return schemas(method) if inspect.signature(schemas).parameters else schemas()


@dataclass(frozen=True, kw_only=True)
class ClipMethods:
    """Which `methods` for clips are run."""

    methods: tuple[str, ...]

    def __post_init__(self) -> None:
        """Raises `ValueError` for a method that there is not."""
        for name in self.methods:
            if name not in clip_methods():
                raise ValueError(f"correspond.methods: there is no method '{name}'{closest(name, clip_methods())}")


def _schemas(stage: str, methods: Iterable[str]) -> Iterator[Mapping[str, Any]]:
    """What a stage reads for each of the methods; one that runs methods for clips, for all of those at once."""
    if "correspond.${item.method}" in getattr(stage_module(stage), "SECTIONS", ()):
        of_methods = [stage_schemas(stage, method) for method in clip_methods()]
        yield {"correspond": ClipMethods, **{name: target for found in of_methods for name, target in found.items()}}
        return
    yield from (stage_schemas(stage, method) for method in methods)


def check(file: Path = FILE) -> list[str]:
    """Check all settings and return the names of the methods that have some. Raises `ParamsError` with all problems."""
    content = load(file)
    blocks = list(content.get("methods") or {})
    known = [name for name in blocks if name in names()]
    problems = [
        f"methods.{name}: there is no such method{closest(name, names())}" for name in blocks if name not in names()
    ]
    read_sections = {"methods"}
    for stage in stage_names():
        for schemas in _schemas(stage, known or names()[:1]):
            read_sections |= {section.partition(".")[0] for section in schemas}
            try:
                settings = read(schemas, file)
                if "run" in settings:
                    leaderboard.run(**settings["run"])
                if "adapt" in settings:
                    stage_module("adapt").Plan(**settings["adapt"])
                if "correspond" in settings:
                    ClipMethods(**settings["correspond"])
            except ParamsError as error:
                problems += error.problems
            except ValueError as error:
                problems.append(str(error))
    problems += _not_run(content, known)
    problems += _unread(read_sections, file)
    if problems:
        raise ParamsError(list(dict.fromkeys(problems)), file)
    return known


def _not_run(content: Mapping[str, Any], known: list[str]) -> Iterator[str]:
    """Methods that are asked for and can't run."""
    asked = (content.get("run") or {}).get("methods") or []
    for name in asked if isinstance(asked, list) else []:
        if name not in names():
            yield f"run.methods: there is no method '{name}'{closest(name, names())}"
        elif name not in known:
            yield f"run.methods: '{name}' has no settings; add a block methods.{name}"


def _unread(read_sections: set[str], file: Path) -> Iterator[str]:
    """Sections that no stage reads, unless they carry an anchor: those lend their values to other sections."""
    for section, block in YAML(typ="rt").load(file).items():
        anchor = getattr(block, "anchor", None)
        if section not in read_sections and not (anchor and anchor.value):
            yield f"{section}: no stage reads this section{closest(section, read_sections)}"
