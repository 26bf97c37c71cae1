"""Classes that are found by the names of their files: a new one is one new file, and nothing to register."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TypeVar

from sslflow.settings.params import closest

T = TypeVar("T")


def names(package: str) -> list[str]:
    """The files in a package, without their endings, in order."""
    return sorted(module.name for module in pkgutil.iter_modules(importlib.import_module(package).__path__))


def find(package: str, name: str, kind: type[T], words: str) -> type[T]:
    """The one class of the kind that the file `name` in the package defines. Raises `ValueError` with a suggestion for
    a name that is unknown; `words` say what it should have been the name of."""
    known = names(package)
    if name not in known:
        raise ValueError(f"there is no {words} '{name}'{closest(name, known)}")
    module = importlib.import_module(f"{package}.{name}")
    (found,) = (
        item
        for item in vars(module).values()
        if isinstance(item, type) and issubclass(item, kind) and item.__module__ == module.__name__
    )
    return found
