"""The text of a settings file, and what YAML makes of it, as DVC reads it; whatever is wrong is one line."""

from __future__ import annotations

import codecs
import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

MERGE_KEY = re.compile(r"^[^#\n]*?<<\s*:", re.MULTILINE)
NO_MERGE_KEYS = (
    "merge keys (<<) are not read: `dvc exp run -S` replaces them by copies, after which a change of what they name "
    "changes nothing. Shared values stand in train, views, clip_train and clip_views now, and a method's block holds "
    "what differs from them, as in recipes/full.yaml"
)
MOST = 100_000
"""Values, each counted wherever an alias stands for it: ten lines of aliases can stand for billions."""
WIDE = {codecs.BOM_UTF32_LE: "UTF-32", codecs.BOM_UTF32_BE: "UTF-32", codecs.BOM_UTF16_LE: "UTF-16",
        codecs.BOM_UTF16_BE: "UTF-16"}  # fmt: skip


def content(file: Path) -> dict[str, Any]:
    """The whole file as plain dicts and lists, read as YAML 1.2 (`1e-3` is a number). Raises `ValueError` with what is
    wrong, without the file's name."""
    text = _text(file)
    try:
        found = YAML(typ="safe").load(text)
        size = _size(found, {})
    except YAMLError as error:
        raise ValueError(f"not valid YAML: {_words(error, text)}") from None
    except RecursionError:
        raise ValueError("not valid YAML: brackets are nested too deeply, or an alias stands within itself") from None
    except (ValueError, KeyError, TypeError, OverflowError) as error:  # what a tag such as !!bool makes of a value
        raise ValueError(f"not valid YAML: a value isn't what its tag says: {' '.join(str(error).split())}") from None
    if size > MOST:
        raise ValueError(f"aliases (*) stand for more than {MOST:,} values: write shared ones once, in train or views")
    if not isinstance(found, dict):
        raise ValueError("expected sections with settings, found none")
    if odd := [key for key in found if not isinstance(key, str)]:
        raise ValueError(f"expected names of sections, found {odd[0]!r}")
    if merged := MERGE_KEY.search(text):
        raise ValueError(f"line {text.count(chr(10), 0, merged.end()) + 1}: {NO_MERGE_KEYS}")
    return found


def _size(value: Any, known: dict[int, int]) -> int:
    """How many values there are in a value, if every alias were written out. Raises `RecursionError` where it has no
    end."""
    if not isinstance(value, (dict, list)):
        return 1
    if id(value) not in known:
        parts = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_size(part, known) for part in parts)
    return known[id(value)]


def _text(file: Path) -> str:
    try:
        raw = file.read_bytes()
    except FileNotFoundError:
        raise ValueError(f"there is no such file in {Path.cwd()}: run this from the project's folder") from None
    except OSError as error:
        raise ValueError(f"expected a file with settings: {error.strerror}") from None
    wide = next((name for mark, name in WIDE.items() if raw.startswith(mark)), "")
    if wide:
        raise ValueError(f"its text is {wide}: save it as UTF-8")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"line {line}: the byte 0x{raw[error.start]:02x} is no UTF-8: save the file as UTF-8"
        ) from None


def _words(error: YAMLError, text: str) -> str:
    """What is wrong, the line first."""
    if not isinstance(error, MarkedYAMLError):
        return " ".join(str(error).split())
    mark = error.problem_mark or error.context_mark
    number = mark.line + 1 if mark else 0
    lines = text.splitlines()
    line = lines[number - 1] if 0 < number <= len(lines) else ""
    problem = " ".join(str(error.problem or error.context).split())
    if isinstance(error, DuplicateKeyError):
        key = line.partition(":")[0].strip().strip("{,") or problem
        problem = f"{key} stands there twice, and only one can count: remove the other"
    elif "\t" in line[: len(line) - len(line.lstrip())]:
        problem = "a tab where the line begins: YAML is indented by spaces"
    return f"line {number}: {problem}" if number else problem
