"""`params.yaml`, read once at the edge and checked against the signatures of what it configures.

The constructor is the schema: the keyword-only parameters (right of `*`) of a callable are the keys of its
section; their annotations give types and ranges, their defaults make a key optional. A parameter annotated with a
dataclass is a mapping of that dataclass's fields.
"""

from __future__ import annotations

import difflib
import inspect
import re
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass, replace
from functools import cache, partial
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, TypeGuard

from annotated_types import Ge, Gt, Le, Lt
from pydantic import ConfigDict, TypeAdapter, ValidationError

from sslflow.settings.file import content

Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Fraction = Annotated[float, Ge(0), Le(1)]
Rate = Annotated[float, Gt(0), Le(1e4)]
Below = Annotated[float, Ge(0), Lt(1)]
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


@dataclass(frozen=True)
class Over:
    """What a section configures that is laid over the `shared` one, key by key. Of the shared section, which other
    callables read as well, those keys count that `target` has."""

    shared: str
    target: Callable[..., Any]


Schemas = Mapping[str, Callable[..., Any] | Over]
"""What each section (`"probe"`, or dotted, `"methods.simclr.train"`) configures."""


@dataclass(frozen=True)
class _Layer:
    """Settings, and the place in the file where they stand; `strict`: they are for one callable alone."""

    place: str
    values: Mapping[str, Any]
    strict: bool


def load(file: Path = FILE) -> dict[str, Any]:
    """The whole file as plain dicts and lists. Raises `ParamsError` for what is no settings file."""
    try:
        return content(file)
    except ValueError as error:
        raise ParamsError([str(error)], file) from None


def read(schemas: Schemas, file: Path = FILE) -> dict[str, dict[str, Any]]:
    """Settings of the sections named, checked, ready to be passed as keyword arguments.

    A section inside another that is also named belongs to its own callable. It may be absent, as a shared one may:
    then the defaults hold. Raises `ParamsError` with all problems of all sections at once.
    """
    problems: list[str] = []
    settings = checked(schemas, load(file), problems)
    if problems:
        raise ParamsError(list(dict.fromkeys(problems)), file)
    return settings


def checked(schemas: Schemas, content: Mapping[str, Any], problems: list[str]) -> dict[str, dict[str, Any]]:
    """As `read`, of a file's content; what is wrong is added to `problems`, and its section may be left out."""
    settings = {}
    for section, configured in schemas.items():
        inner = {name.removeprefix(section + ".").split(".")[0] for name in schemas if name.startswith(section + ".")}
        known = len(problems)
        own = _find(content, section, problems, optional="." in section)
        layers = [_Layer(section, {key: value for key, value in own.items() if key not in inner}, strict=True)]
        shared, target = (configured.shared, configured.target) if isinstance(configured, Over) else ("", configured)
        if shared:
            layers.append(_Layer(shared, _find(content, shared, problems, optional=True), strict=False))
        if len(problems) > known:
            continue
        settings[section] = _check(layers, target, problems, inner)
        if _is_dataclass(target) and len(problems) == known:
            _made(target, settings[section], "", problems)
    return settings


def lookup(content: Mapping[str, Any], section: str, over: str = "") -> dict[str, Any]:
    """A section as it stands in a file's content, laid over the shared section `over`, unchecked; where it is absent or
    no mapping, an empty one."""
    own: Any = content
    for key in section.split("."):
        own = own.get(key) if isinstance(own, dict) else None
    own = own if isinstance(own, dict) else {}
    return _laid(lookup(content, over), own) if over else own


def _laid(under: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """`own` over `under`, mappings in them likewise."""
    both = {key for key in own if isinstance(own[key], dict) and isinstance(under.get(key), dict)}
    return {**under, **own, **{key: _laid(under[key], own[key]) for key in both}}


def sections(schemas: Schemas) -> set[str]:
    """The outermost of the sections that are read, and the shared ones."""
    named = {*schemas, *(configured.shared for configured in schemas.values() if isinstance(configured, Over))}
    return {name for name in named if not any(name.startswith(f"{other}.") for other in named)}


def closest(word: str, known: Iterable[str]) -> str:
    """`", did you mean 'simclr'?"` where a known word is close, else the list of what is known."""
    known = [str(name) for name in known]
    folded = {name.casefold(): name for name in known}
    close = difflib.get_close_matches(str(word).casefold(), folded, n=1, cutoff=0.6)
    return f", did you mean '{folded[close[0]]}'?" if close else f" (known: {', '.join(sorted(known)) or 'none'})"


def schema(target: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """The keyword-only parameters of a callable, or all fields of a dataclass, with their annotations resolved."""
    function = target.__init__ if inspect.isclass(target) else target
    hints = typing.get_type_hints(function, include_extras=True)
    return {
        p.name: p.replace(annotation=hints.get(p.name, Any))
        for p in inspect.signature(target).parameters.values()
        if p.kind is inspect.Parameter.KEYWORD_ONLY or _is_dataclass(target)
    }


def keys(target: Callable[..., Any]) -> Iterator[str]:
    """The keys of a callable's section, those of a mapping in it dotted: `crop`, `crop.smallest`."""
    for name, parameter in schema(target).items():
        yield name
        if _is_dataclass(parameter.annotation):
            yield from (f"{name}.{key}" for key in keys(parameter.annotation))


def _is_dataclass(target: Any) -> TypeGuard[type]:
    return isinstance(target, type) and is_dataclass(target)


def _find(content: Mapping[str, Any], section: str, problems: list[str], *, optional: bool) -> Mapping[str, Any]:
    """The section; an empty one where it is absent, which is noted unless it is `optional`, and where it is none."""
    place: Any = content
    walked: list[str] = []
    for key in section.split("."):
        if key not in place:
            if not optional:
                problems.append(f"{'.'.join([*walked, key])}: missing section{closest(key, place)}")
            return {}
        place = place[key] if place[key] is not None else {}
        walked.append(key)
        if not isinstance(place, dict):
            problems.append(f"{'.'.join(walked)}: expected settings (key: value), found {place!r}")
            return {}
    return place


def _check(
    layers: Sequence[_Layer],
    target: Callable[..., Any],
    problems: list[str],
    inner: Collection[str] = (),
    base: object = None,
) -> dict[str, Any]:
    """The keys of `target` that any layer holds, each from the first that does. What is missing is `base`'s."""
    known = schema(target)
    for layer in layers:
        unknown = [key for key in layer.values if key not in known] if layer.strict else []
        problems += [f"{layer.place}.{key}: unknown{closest(key, [*known, *inner])}" for key in unknown]
    found = {}
    for key, parameter in known.items():
        holding = [layer for layer in layers if key in layer.values]
        if not holding and parameter.default is inspect.Parameter.empty and base is None:
            also = "".join(f", and not in {layer.place} either" for layer in layers[1:])
            problems.append(f"{layers[0].place}.{key}: missing{also}")
        elif holding and _is_dataclass(parameter.annotation):
            found[key] = _mapping(holding, key, parameter, problems)
        elif holding:
            found[key] = _value(f"{holding[0].place}.{key}", holding[0].values[key], parameter.annotation, problems)
    return found


def _mapping(holding: Sequence[_Layer], key: str, parameter: inspect.Parameter, problems: list[str]) -> Any:
    """The dataclass that a parameter is annotated with; fields that no layer holds are those of its default."""
    before = len(problems)
    layers = [
        _Layer(f"{layer.place}.{key}", {} if layer.values[key] is None else layer.values[key], layer.strict)
        for layer in holding
    ]
    for layer in layers:
        if not isinstance(layer.values, dict):
            problems.append(f"{layer.place}: expected settings (key: value), found {layer.values!r}")
            return None
    kind = parameter.annotation
    base = parameter.default if isinstance(parameter.default, kind) else None
    found = _check(layers, kind, problems, base=base)
    build = kind if base is None else partial(replace, base)
    return _made(build, found, f"{layers[0].place}: ", problems) if len(problems) == before else None


def _made(build: Callable[..., Any], settings: Mapping[str, Any], place: str, problems: list[str]) -> Any:
    """What the settings make, or None with the problem noted: they may not fit together."""
    try:
        return build(**settings)
    except ValueError as error:
        problems.append(f"{place}{error}")
        return None


def _value(place: str, value: Any, annotation: Any, problems: list[str]) -> Any:
    try:
        return _adapter(annotation).validate_python(_frozen(value), strict=True)
    except ValidationError as error:
        found = error.errors()
        # Where an entry is wrong, a list without it may be too short: that is no problem of its own.
        for problem in [one for one in found if one["type"] != "too_short"] or found:
            inside = "".join(f"[{part}]" for part in problem["loc"] if isinstance(part, int))
            problems.append(f"{place}{inside}: {_reason(problem['type'], problem['msg'], problem['input'])}")
        return None


def _reason(kind: str, words: str, value: Any) -> str:
    """What was expected and what was found, in YAML's terms rather than Python's."""
    shown = "nothing" if value is None else repr(value)
    if kind == "tuple_type":
        one = "" if isinstance(value, (dict, NoneType)) else f", such as [{value}]"
        return f"should be a list{one}, found {shown}"
    if kind == "missing":
        return "missing: the list is too short"
    if kind == "too_short":
        return "the list is empty: name at least one"
    if kind == "too_long":
        return "the list is too long: " + words.removeprefix("Tuple should have ").replace(", not", ", found")
    if kind == "literal_error" and isinstance(value, str):
        near = closest(value, re.findall(r"'([^']*)'", words))
        return f"should be {_expected(words)}, found {shown}{near if 'did you mean' in near else ''}"
    plain = {
        "int_type": "an integer",
        "float_type": "a number",
        "string_type": "a string",
        "bool_type": "true or false",
    }
    expected = plain.get(kind) or _expected(words)
    quoted = isinstance(value, str) and kind in ("int_type", "float_type", "bool_type") and _is_written(value)
    return f"should be {expected}, found {shown}" + (": leave out the quotes" if quoted else "")


def _expected(words: str) -> str:
    return words.replace("Input should be ", "").replace("a valid ", "a ").replace("a integer", "an integer")


def _is_written(value: str) -> bool:
    """Whether a text in quotes would be a number, true or false without them."""
    return bool(re.fullmatch(r"true|false|[-+]?[0-9_]*\.?[0-9]+([eE][-+]?[0-9]+)?", value))


@cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation, config=ConfigDict(allow_inf_nan=False))


def _frozen(value: Any) -> Any:
    """YAML's lists as tuples, at any depth: settings are not changed after they are read."""
    if isinstance(value, list):
        return tuple(_frozen(item) for item in value)
    if isinstance(value, dict):
        return {key: _frozen(item) for key, item in value.items()}
    return value
