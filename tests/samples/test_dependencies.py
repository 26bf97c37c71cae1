"""What pyproject.toml asks for is what the project imports."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions

from tests.conftest import ROOT

HELD_DOWN = {"fastapi", "sqlalchemy"}
"""Imported by Prefect only: named for their versions (docs/decisions/0005-pins.md)."""


def imported() -> Iterator[str]:
    """The packages that files of the project import, anywhere in their text."""
    for package in ("sslflow", "pipelines"):
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    yield from (alias.name.partition(".")[0] for alias in node.names)
                elif isinstance(node, ast.ImportFrom) and node.module:
                    yield node.module.partition(".")[0]
                elif isinstance(node, ast.Call) and ast.unparse(node.func) == "importlib.import_module":
                    yield ast.unparse(node.args[0]).strip("'")


def test_no_package_is_asked_for_that_nothing_imports():
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    names = {re.split(r"[^\w.-]", line)[0].lower().replace("_", "-") for line in asked}
    providers = packages_distributions()
    used = {found.lower().replace("_", "-") for name in set(imported()) for found in providers.get(name, ())}
    assert names - used == HELD_DOWN
