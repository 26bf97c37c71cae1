"""params.yaml for a folder of a user's: a recipe with what the folder and the machine ask for filled in."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from sslflow.commands.annotated import annotation_hints
from sslflow.commands.check import check
from sslflow.commands.host import host
from sslflow.commands.proposal import Proposal, choose, propose
from sslflow.commands.schedule import NAMES, Value
from sslflow.commands.survey import survey
from sslflow.runtime.files import replacing
from sslflow.settings.params import FILE, ParamsError, closest, load

RECIPES = Path("recipes")
SEAL = re.compile(r"^# As `sslflow init` wrote it: ([0-9a-f]{16})\n\Z", re.MULTILINE)
"""The last line of what `init` wrote: a hash of all lines above. Where it no longer holds, somebody edited the file."""


def init(folder: Path, recipe: str | None = None, *, force: bool = False, device: str = "auto") -> Iterator[str]:
    """Write params.yaml for a folder of images or videos; the lines to be printed. Raises `ValueError` where the folder
    or the recipe can't do, and where params.yaml was edited, unless `force`d; then nothing is written."""
    if not Path("dvc.yaml").is_file() or not RECIPES.is_dir():
        raise ValueError(
            f"{Path.cwd()}: no dvc.yaml and no recipes here: run this in a copy of the project (README, Start); the "
            "folder of images can lie anywhere"
        )
    if recipe is not None and recipe not in NAMES:
        raise ValueError(f"--recipe: there is no recipe '{recipe}'{closest(recipe, NAMES)}")
    if not force and edited(FILE):
        raise ValueError(f"{FILE} was edited: keep a copy elsewhere, then --force overwrites it")
    machine = host(device)
    found = survey(folder)
    chosen = (recipe, "as asked for") if recipe else choose(found, machine)
    proposal = propose(found, machine, load(RECIPES / f"{chosen[0]}.yaml"), *chosen)
    write(proposal, folder)
    yield f"recipe {proposal.recipe}: {proposal.why}"
    yield from _table(proposal.values)
    yield from proposal.remarks
    yield from annotation_hints(folder)
    yield f"wrote {FILE}, from {RECIPES}/{proposal.recipe}.yaml; next: `sslflow run`, or `dvc repro`"


def edited(file: Path) -> bool:
    """Whether a settings file is neither a shipped recipe nor what `init` wrote, byte for byte."""
    if not file.exists():
        return False
    content = file.read_bytes()
    if any(content == one.read_bytes() for one in RECIPES.glob("*.yaml")):
        return False
    text = content.decode("utf-8", "replace")
    found = SEAL.search(text)
    return found is None or _hash(text[: found.start()]) != found[1]


def write(proposal: Proposal, folder: Path) -> None:
    """The recipe with the values, in place of params.yaml. Raises `ParamsError` for what `sslflow check` refuses."""
    yaml = YAML()
    yaml.width = 10_000
    yaml.preserve_quotes = True
    content = yaml.load(RECIPES / f"{proposal.recipe}.yaml")
    for one in proposal.values:
        _set(content, one)
    written = io.StringIO()
    yaml.dump(content, written)
    text = f"# From recipes/{proposal.recipe}.yaml by `sslflow init {folder}`.\n{written.getvalue()}"
    text += f"# As `sslflow init` wrote it: {_hash(text)}\n"
    with replacing(FILE) as temporary:
        temporary.write_text(text, encoding="utf-8")
        try:
            check(temporary)
        except ParamsError as error:
            raise ParamsError(error.problems, FILE) from None


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _set(content: CommentedMap, one: Value) -> None:
    """Put a value in its place; comments stay."""
    *sections, key = one.setting.split(".")
    place: Any = content
    for section in sections:
        place = place[section]
    former = place.get(key)
    if isinstance(one.value, list) and isinstance(former, CommentedSeq) and one.value:
        former[:] = one.value
    else:
        place[key] = one.value


def _table(values: Sequence[Value]) -> Iterator[str]:
    shown = [(one.setting, _shown(one.value), one.why) for one in values]
    widths = [max(len(row[column]) for row in shown) for column in range(2)]
    for setting, value, why in shown:
        yield f"  {setting:<{widths[0]}}  {value:<{widths[1]}}  {why}"


def _shown(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    return str(value).lower() if isinstance(value, bool) else f"{value:,}" if isinstance(value, int) else str(value)
