"""What a method gets of params.yaml, and from where."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from sslflow.commands.check import BLOCKS, all_schemas, known
from sslflow.settings.params import FILE, Over, ParamsError, checked, closest, load, lookup, schema

COLUMN = 40


def show(method: str, file: Path = FILE) -> str:
    """All settings of a method, as YAML; beside each that isn't the method's own, the section that it is from, or that
    it is a default. Raises `ValueError` for a method that there is not, `ParamsError` for settings that are wrong."""
    content = load(file)
    there = sorted({name for kind in BLOCKS for name in known(kind, content)})
    if method not in there:
        raise ValueError(f"there is no method '{method}'{closest(method, there)}")
    own = [f"{block}.{method}" for block in BLOCKS.values()]
    found = [
        (section, one)
        for stage in all_schemas(content).values()
        for section, one in stage.items()
        if any(section == name or section.startswith(f"{name}.") for name in own)
    ]
    # Some stages check a section that they don't use, by itself; those that use it lay it over the shared one.
    schemas = dict(sorted(found, key=lambda pair: isinstance(pair[1], Over)))
    problems: list[str] = []
    settings = checked(schemas, content, problems)
    if problems:
        raise ParamsError(problems, file)
    shown = CommentedMap()
    for section, one in schemas.items():
        over = one.shared if isinstance(one, Over) else ""
        target = one.target if isinstance(one, Over) else one
        place = shown
        for key in section.split("."):
            place = place.setdefault(key, CommentedMap())
        layers = {section: lookup(content, section), over: lookup(content, over)}
        _show(place, target, settings[section], layers)
    text = io.StringIO()
    yaml = YAML()
    yaml.width = 1000
    yaml.dump(shown, text)
    return text.getvalue()


def _show(
    place: CommentedMap, target: Any, settings: Mapping[str, Any], layers: Mapping[str, Mapping[str, Any]]
) -> None:
    """Add settings, and where they are from, to a place in the YAML."""
    for key, parameter in schema(target).items():
        value = settings.get(key, parameter.default)
        if is_dataclass(value):
            inside = {f"{name}.{key}": lookup(values, key) for name, values in layers.items()}
            place[key] = CommentedMap()
            _show(place[key], type(value), vars(value), inside)
            continue
        if isinstance(value, tuple):
            value = CommentedSeq(value)
            value.fa.set_flow_style()
        place[key] = value
        source = next((name for name, values in layers.items() if key in values), "default")
        if source != next(iter(layers)):
            place.yaml_add_eol_comment(source, key, column=COLUMN)
