"""`params.yaml`, read once at the edge and checked against the signatures of what it configures.

The constructor is the schema: the keyword-only parameters (right of `*`) of a callable are the keys of its
section; their annotations give types and ranges, their defaults make a key optional.
"""

from __future__ import annotations

import difflib
import inspect
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le
from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Fraction = Annotated[float, Ge(0), Le(1)]
Count = Annotated[int, Gt(0)]
Natural = Annotated[int, Ge(0)]
Widths = tuple[Count, ...]

FILE = Path("params.yaml")


class ParamsError(ValueError):
    """Everything that is wrong with the settings, one line each."""

    def __init__(self, problems: list[str], file: Path = FILE) -> None:
        self.problems = problems
        count = f"{len(problems)} problem" + ("s" if len(problems) > 1 else "")
        super().__init__(f"{file}: {count}\n" + "\n".join(f"  {problem}" for problem in problems))


def load(file: Path = FILE) -> dict[str, Any]:
    """The whole file as plain dicts and lists, read as YAML 1.2, as DVC reads it (`1e-3` is a number)."""
    try:
        content = YAML(typ="safe").load(file.read_text())
    except FileNotFoundError:
        raise ParamsError(
            [f"there is no such file in {Path.cwd()}: run this from the project's folder"], file
        ) from None
    except YAMLError as error:
        raise ParamsError([f"not valid YAML: {' '.join(str(error).split())}"], file) from None
    if not isinstance(content, dict):
        raise ParamsError(["expected sections with settings, found none"], file)
    return content


def read(schemas: Mapping[str, Callable[..., Any]], file: Path = FILE) -> dict[str, dict[str, Any]]:
    """Settings of the sections named, checked, ready to be passed as keyword arguments.

    `schemas` maps a section (`"probe"`, or dotted, `"methods.simclr.train"`) to the callable that it configures. A
    section inside another that is also named belongs to its own callable. Raises `ParamsError` with all problems of
    all sections at once.
    """
    content = load(file)
    problems: list[str] = []
    settings = {}
    for section, target in schemas.items():
        inner = {name.removeprefix(section + ".").split(".")[0] for name in schemas if name.startswith(section + ".")}
        found = _find(content, section, problems)
        if found is not None:
            own = {key: value for key, value in found.items() if key not in inner}
            settings[section] = _check(section, own, target, inner, problems)
    if problems:
        raise ParamsError(problems, file)
    return settings


def closest(word: str, known: typing.Iterable[str]) -> str:
    """`", did you mean 'simclr'?"` where a known word is close, else the list of what is known."""
    known = [str(name) for name in known]
    close = difflib.get_close_matches(str(word), known, n=1, cutoff=0.6)
    return f", did you mean '{close[0]}'?" if close else f" (known: {', '.join(sorted(known)) or 'none'})"


def schema(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The keyword-only parameters of a callable, with their annotations resolved."""
    function = target.__init__ if inspect.isclass(target) else target
    hints = typing.get_type_hints(function, include_extras=True)
    parameters = inspect.signature(function).parameters.values()
    return {
        p.name: p.replace(annotation=hints.get(p.name, Any))
        for p in parameters
        if p.kind is inspect.Parameter.KEYWORD_ONLY
    }


def _find(content: dict[str, Any], section: str, problems: list[str]) -> dict[str, Any] | None:
    """The section, or None with the problem noted. One that is there and null is empty: its defaults may suffice."""
    place: Any = content
    walked: list[str] = []
    for key in section.split("."):
        if key not in place:
            problems.append(f"{'.'.join([*walked, key])}: missing section{closest(key, place)}")
            return None
        place = place[key] if place[key] is not None else {}
        walked.append(key)
        if not isinstance(place, dict):
            problems.append(f"{'.'.join(walked)}: expected settings (key: value), found {place!r}")
            return None
    return place


def _check(
    section: str, found: dict[str, Any], target: Callable[..., Any], inner: set[str], problems: list[str]
) -> dict[str, Any]:
    known = schema(target)
    checked = {}
    for key, value in found.items():
        if key not in known:
            problems.append(f"{section}.{key}: unknown{closest(key, [*known, *inner])}")
            continue
        try:
            checked[key] = TypeAdapter(known[key].annotation).validate_python(_frozen(value), strict=True)
        except ValidationError as error:
            for problem in error.errors():
                inside = "".join(f"[{part}]" for part in problem["loc"] if isinstance(part, int))
                reason = problem["msg"].replace("Input should be", "should be").replace("a valid ", "a ")
                problems.append(f"{section}.{key}{inside}: {reason}, found {problem['input']!r}")
    for key, parameter in known.items():
        if key not in found and parameter.default is inspect.Parameter.empty:
            problems.append(f"{section}.{key}: missing")
    return checked


def _frozen(value: Any) -> Any:
    """YAML's lists as tuples, at any depth: settings are not changed after they are read."""
    if isinstance(value, list):
        return tuple(_frozen(item) for item in value)
    if isinstance(value, dict):
        return {key: _frozen(item) for key, item in value.items()}
    return value
