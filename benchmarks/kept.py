"""What benchmarks keep from run to run, as long as it would be made of the same; and which of it today's code has not
made."""

from __future__ import annotations

import ast
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from sslflow.runtime.files import sha256, write_text
from tests.imports import LOOSE, modules, needed_modules, reached

ROOT = Path(__file__).resolve().parent.parent


def make(place: Path, made_of: Any, rooms: tuple[str, ...], build: Callable[[], object]) -> None:
    """Have `build` write the file or folder `place`, unless it is there and was made of the same settings `made_of`, by
    the same code of these `rooms` of sslflow, from the same samples."""
    files = [file for room in rooms for file in sorted((ROOT / "sslflow" / room).rglob("*.py"))]
    files += sorted((ROOT / "data/samples").rglob("*.parquet")) + sorted((ROOT / "data/samples").rglob("*-ubyte.gz"))
    content = json.dumps([made_of, [sha256(file) for file in files]], sort_keys=True, default=str)
    found, mark = hashlib.sha256(content.encode()).hexdigest(), place.with_name(f"{place.name}.made_of")
    if place.exists() and mark.exists() and mark.read_bytes() == found.encode():
        return
    mark.unlink(missing_ok=True)
    if place.is_dir():
        shutil.rmtree(place)
    place.unlink(missing_ok=True)
    build()
    write_text(mark, found)


def code_of(stages: Iterable[str], *methods: str) -> dict[str, str]:
    """What a run's numbers come from: every module that the stages, and the modules of the methods, reach, with a hash
    of its code, comments and docstrings left out."""
    found = set().union(*(needed_modules(stage)[0] for stage in stages)) | reached(*methods) - set(LOOSE)
    return {module: hash_of(modules()[module]) for module in sorted(found)}


@cache
def hash_of(file: Path) -> str:
    """Of a file's code."""
    return hashlib.sha256(plain(file).encode()).hexdigest()[:12]


def plain(file: Path) -> str:
    """A file's code, comments and docstrings left out; the same by every version of Python."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [one for one in body if not _is_words(one)]  # pyright: ignore[reportAttributeAccessIssue]
    # Later versions of Python tell of type parameters, where there are none, too.
    whole = {"show_empty": True} if sys.version_info >= (3, 13) else {}
    return ast.dump(tree, **whole).replace(", type_params=[]", "")


def _is_words(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def commit() -> str:
    """The commit that is checked out."""
    asked = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def other_code(result: Mapping[str, Any], now: Mapping[str, str]) -> str:
    """By what code a result was made, if that is not today's: `1dd76f9: data.dataset, views.images`; else empty."""
    made = result.get("code")
    if made is None:
        return f"{result.get('commit', 'an earlier commit')}: which modules differ is not known"
    differ = sorted(name for name in made.keys() | now if made.get(name) != now.get(name))
    return f"{result['commit']}: {', '.join(name.removeprefix('sslflow.') for name in differ)}" if differ else ""


def note(rows: Mapping[str, Iterable[str]]) -> Iterator[str]:
    """What stands below a table in which ‡ marks rows: of each row, or of all of which the same is to be said, what
    `other_code` says of its results."""
    alike: dict[str, list[str]] = {}
    for name, words in rows.items():
        alike.setdefault("; ".join(sorted(set(filter(None, words)))), []).append(name)
    said = [f"{', '.join(names)} ({words})" for words, names in alike.items() if words]
    if said:
        yield from ("", f"‡ Made by other code than today's: {', '.join(said)}.")
