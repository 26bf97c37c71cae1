"""The whole of params.yaml against every stage that reads it, before anything runs."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

from sslflow import paths, stages
from sslflow.commands import values
from sslflow.networks.starts import BLIND, BUILT_IN, COUNTED, ELSEWHERE, MEAN, RANDOM, RAW
from sslflow.settings import by_name
from sslflow.settings.names import SETS, odd_names
from sslflow.settings.params import (
    FILE,
    Over,
    ParamsError,
    Schemas,
    checked,
    closest,
    keys,
    load,
    lookup,
    sections,
)
from sslflow.settings.sections import IMAGES, KINDS, data_kind
from sslflow.training.ingredients import CAPTIONED, ingredients
from sslflow.training.method import find

BLOCKS = {"data": "methods", "clips": "clip_methods", "adaptation": "adapt_methods"}
"""The kinds of methods, and the section of params.yaml that holds their blocks; `data`: those for what `data.kind`
says."""
ASKED = {"data": "run.methods", "clips": "run.clip_methods", "adaptation": "run.adapt_methods"}
"""The setting that says which of them are run."""
RENAMED = {
    "two_views": "views",
    "multi_crop": "views",
    "clips_train": "clip_train",
    "clips_views": "clip_views",
    "correspond": "clip_methods, clip_encoders, pretrain_clips and examine",
    "augment": "preview",
}
"""Sections of earlier versions, and where their settings stand now."""


@cache
def names(kind: str) -> list[str]:
    """All methods of a kind: the files in `sslflow/methods/<kind>/`."""
    return by_name.names(f"sslflow.methods.{kind}")


def known(kind: str, content: Mapping[str, Any]) -> list[str]:
    """All methods of one of the kinds in `BLOCKS`, in a file with this content."""
    return names(data_kind(content) if kind == "data" else kind)


def stage_names() -> list[str]:
    """All stages: the files in `sslflow/stages/`, less the one about how stages start."""
    return sorted(module.name for module in pkgutil.iter_modules(stages.__path__) if module.name != "entry")


def stage_module(stage: str) -> ModuleType:
    """The module of a stage; its `schemas` tells what it reads of params.yaml."""
    return importlib.import_module(f"sslflow.stages.{stage}")


def stage_schemas(stage: str, content: Mapping[str, Any]) -> Schemas:
    """What a stage reads of a file with this content: `schemas` of its module, called with every method, or every named
    set, that its parameter is the name of."""
    schemas = stage_module(stage).schemas
    asked_of = list(inspect.signature(schemas).parameters)
    found: dict[str, Any] = {}
    for one in product(*(_items(name, content) for name in asked_of)):
        found |= schemas(*one)
    return found


def _items(name: str, content: Mapping[str, Any]) -> list[str]:
    """What a parameter of `schemas` may be, by its name."""
    if name in SETS:
        return list(lookup(content, name))
    if name == "section":
        return ["data", *(f"{kind}.{one}" for kind in SETS for one in lookup(content, kind))]
    if name == "kind":
        return [data_kind(content)]
    kinds = {"method": "data", "companion": "images", "clip_method": "clips", "adaptation_method": "adaptation"}
    return known(kinds[name], content)


def all_schemas(content: Mapping[str, Any]) -> dict[str, Schemas]:
    """What each stage reads, with the sections of all methods."""
    return {stage: stage_schemas(stage, content) for stage in stage_names()}


def check(file: Path = FILE) -> dict[str, list[str]]:
    """Check all settings; return the methods of each kind that have a block. Raises `ParamsError` with all problems."""
    content = load(file)
    schemas = all_schemas(content)
    blocks = {kind: [name for name in known(kind, content) if name in lookup(content, BLOCKS[kind])] for kind in BLOCKS}
    asked = {kind: list(_asked(content, kind)) for kind in BLOCKS}
    problems: list[str] = []
    for own in schemas.values():
        used = {section: one for section, one in own.items() if not _of_idle_method(section, content, blocks, asked)}
        checked(used, content, problems)
    problems += odd_names(content)
    problems += _methods(content, blocks, asked)
    problems += _named(content, asked)
    problems += _starts(content)
    problems += _sections(content, schemas)
    problems += values.problems(content, asked)
    if problems:
        raise ParamsError(_shared_once(dict.fromkeys(problems)), file)
    return {data_kind(content) if kind == "data" else kind: found for kind, found in blocks.items()}


def _shared_once(problems: Iterable[str]) -> list[str]:
    """The problems, where a shared setting that several sections miss is one, at the end: mistype `train.epochs`, and
    each method lacks it."""
    told: list[str] = []
    missing: dict[tuple[str, str], list[str]] = {}
    for problem in problems:
        place, also, shared = problem.partition(": missing, and not in ")
        section, _, key = place.rpartition(".")
        if also:
            missing.setdefault((key, shared.removesuffix(" either")), []).append(section)
        else:
            told.append(problem)
    for (key, shared), (first, *more) in missing.items():
        others = f", nor in {len(more)} sections more" if more else ""
        told.append(f"{first}.{key}: missing, and not in {shared} either{others}")
    return told


def to_run(file: Path) -> list[str]:
    """The methods that a checked file asks for, of all kinds."""
    content = load(file)
    return [name for kind in BLOCKS for name in _asked(content, kind)]


def _asked(content: Mapping[str, Any], kind: str) -> list[str]:
    """The names of a kind's methods that are to be run, whether there are such methods or not."""
    section, _, setting = ASKED[kind].partition(".")
    found = lookup(content, section).get(setting) or ()
    return [str(name) for name in found] if isinstance(found, list) else []


def _of_idle_method(section: str, content: Mapping[str, Any], *named: Mapping[str, list[str]]) -> bool:
    """Whether a section is of a method that has no block and is not to be run: nobody needs its settings."""
    for kind, block in BLOCKS.items():
        outer, _, name = section.partition(".")
        name = name.partition(".")[0]
        if outer == block and name in known(kind, content):
            return not any(name in one[kind] for one in named)
    return False


def _methods(
    content: Mapping[str, Any], blocks: Mapping[str, list[str]], asked: Mapping[str, list[str]]
) -> Iterator[str]:
    """Blocks of methods that there are not; methods that are to be run, and can't."""
    for kind, block in BLOCKS.items():
        own = known(kind, content)
        for name in lookup(content, block):
            if name not in own:
                unknown = f"there is no such method{closest(name, own)}"
                yield f"{block}.{name}: {_of_other_kind(kind, name, content) or unknown}"
        for name in asked[kind]:
            if name not in own:
                unknown = f"there is no method '{name}'{closest(name, own)}"
                yield f"{ASKED[kind]}: {_of_other_kind(kind, name, content) or unknown}"
    for kind in BLOCKS:
        for name in asked[kind]:
            if name in known(kind, content) and name not in blocks[kind]:
                yield (
                    f"{ASKED[kind]}: '{name}' has no settings; add a block {BLOCKS[kind]}.{name}, which may be empty: "
                    "DVC has to see it"
                )


def _of_other_kind(kind: str, name: str, content: Mapping[str, Any]) -> str:
    """That a method is for another kind of data than the one that is prepared; nothing of other methods."""
    other = next((one for one in KINDS if kind == "data" and name in names(one)), None)
    return f"{name} is a method for {other}, and data.kind is {data_kind(content)}" if other else ""


def _named(content: Mapping[str, Any], asked: Mapping[str, list[str]]) -> Iterator[str]:
    """Sets and methods that settings name and that there are not."""
    for kind, setting, where, there in (
        ("adaptation", "adapt.domains", "domains", lookup(content, "domains")),
        ("adaptation", "adapt.start", ASKED["data"], asked["data"]),
        ("adaptation", "adapt.companion", BLOCKS["data"], lookup(content, BLOCKS["data"])),
        ("clips", "pretrain_clips.clips", "clips", lookup(content, "clips")),
    ):
        section, _, key = setting.partition(".")
        name = lookup(content, section).get(key)
        # A method that is no longer run may have left its encoders.
        kept = setting == "adapt.start" and list(paths.encoder(str(name), 0).parent.glob(f"{name}-*.safetensors"))
        if asked[kind] and isinstance(name, str) and name not in there and not kept:
            yield f"{setting}: there is no '{name}' in {where}{closest(name, there)}"


def _starts(content: Mapping[str, Any]) -> Iterator[str]:
    """Names of weights that there are not, and such as mean something else already."""
    named = list(lookup(content, "starts"))
    for name in named:
        if name in (*BUILT_IN, *(one for kind in KINDS for one in names(kind))):
            yield f"starts.{name}: the name means a row or a method already; choose another"
    for section, key, built_in in (
        ("run", "controls", (RANDOM, *RAW)),
        ("run", "tuned_controls", ("scratch",)),
        ("run", "segment_controls", (RANDOM, "scratch")),
        ("run", "detect_controls", (RANDOM, "scratch")),
        ("run", "match_controls", (RANDOM, "pixels", BLIND)),
        ("run", "depth_controls", (RANDOM, "scratch", MEAN)),
        ("run", "language_controls", (RANDOM, *COUNTED)),
        ("run", "segment_volumes_controls", (RANDOM, "scratch")),
        ("start", "weights", (RANDOM,)),
        ("start", "teacher", (RANDOM,)),
    ):
        asked = lookup(content, section).get(key, ())
        for name in asked if isinstance(asked, list) else [asked] if asked else []:
            if name not in (*built_in, *named):
                yield f"{section}.{key}: there is no '{name}' in starts{closest(str(name), [*built_in, *named])}"
    for section, key in (("adapt", "weights"), ("pretrain_clips", "start")):
        name = lookup(content, section).get(key) or ""
        # A file that isn't there is the stage's to tell, which knows where else it may be.
        if not isinstance(name, str) or not name or name in named:
            continue
        if name.startswith(ELSEWHERE):
            yield f"{section}.{key}: put {name} into a block of starts, and its name here"
        elif Path(name).name == name and not Path(name).suffix and not Path(name).exists():
            yield f"{section}.{key}: there is no '{name}' in starts, nor such a file{closest(name, named)}"
    for name in lookup(content, "methods"):
        own = lookup(content, f"methods.{name}.start")
        for key in ("weights", "teacher"):
            shared = lookup(content, "start").get(key, RANDOM)
            if own.get(key, RANDOM) not in (RANDOM, shared):
                yield f"methods.{name}.start.{key}: expected {RANDOM}, or what start.{key} says ({shared})"
    for name in _asked(content, "data"):
        asked = ingredients(find(name)) if name in known("data", content) else ()
        if "depth" in asked and (without := values.without_depth(content)):
            yield f"run.methods: {name} learns from depth maps: {without}, or leave it out"
        captioned = data_kind(content) == IMAGES and CAPTIONED.intersection(asked)
        if captioned and (without := values.without_captions(content)):
            yield f"run.methods: {name} learns from captions: {without}, or leave it out"
        teacher = lookup(content, f"methods.{name}.start", over="start").get("teacher", RANDOM)
        if teacher == RANDOM and "teacher" in asked:
            yield f"start.teacher: {name} learns from a teacher, and there is none; set it to a name in starts"


def _sections(content: Mapping[str, Any], schemas: Mapping[str, Schemas]) -> Iterator[str]:
    """Sections that no stage reads, and what of the shared ones no method reads."""
    read = {section.partition(".")[0] for own in schemas.values() for section in sections(own)} | set(SETS)
    for section in content:
        if section in RENAMED:
            yield f"{section}: is called {RENAMED[section]} now; recipes/full.yaml shows what belongs there"
        elif section not in read:
            yield f"{section}: no stage reads this section{closest(section, read)}"
    shared: dict[str, set[str]] = {}
    for one in (one for own in schemas.values() for one in own.values() if isinstance(one, Over)):
        shared.setdefault(one.shared, set()).update(keys(one.target))
    for section, known in shared.items():
        if section not in content:
            yield f"{section}: missing section{closest(section, content)}; it may be empty"
        for key in _dotted(lookup(content, section), known):
            if key not in known:
                yield f"{section}.{key}: no method has this setting{closest(key, known)}"


def _dotted(values: Mapping[str, Any], known: Collection[str], place: str = "") -> Iterator[str]:
    """All keys, those of mappings that are known dotted."""
    for name, value in values.items():
        yield (key := f"{place}{name}")
        if isinstance(value, dict) and key in known:
            yield from _dotted(value, known, f"{key}.")
