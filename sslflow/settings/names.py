"""Names from params.yaml that dvc.yaml puts into commands, which a shell runs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from sslflow.settings.params import lookup

PLAIN = re.compile(r"\w[\w-]*")
"""What means nothing but itself to a shell, is one word, one file, no option, and, as it has no dot, one key."""
SETS = ("clips", "domains", "starts")
"""Sections whose keys are names of the user's own."""


def odd_names(content: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the names of sets and with what the lists in `run` name."""
    named = [(section, name) for section in SETS for name in lookup(content, section)]
    for key, value in lookup(content, "run").items():
        named += [(f"run.{key}", name) for name in value] if isinstance(value, list) else []
    for place, name in named:
        if isinstance(name, (str, int, float)) and not PLAIN.fullmatch(str(name)):
            yield f"{place}: {name!r} can't be a name: use letters, digits, _ and -, and no - at the beginning"
