"""What each file of the project imports, read from its text; as a script, the `deps` of a stage for dvc.yaml.

python tests/imports.py pretrain
"""

from __future__ import annotations

import ast
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOUND_BY_NAME = {
    "sslflow.method": "sslflow.methods.",
    "sslflow.adapter": "sslflow.adaptation.",
    "sslflow.audiovisual.method": "sslflow.audiovisual.methods.",
}
"""Modules that find others by name: who imports the first may load any file of the second."""
NEVER = {("correspond", "sslflow.methods.")}
"""Stages that import the first and load nothing of the second: methods for clips are `Method`s, too."""
ASIDE = {("adapt", "sslflow.methods."): "${adapt.companion}"}
"""Where a stage names a file of a package otherwise than as the method that it runs."""


@cache
def modules() -> dict[str, Path]:
    """All modules of the project's packages, `sslflow.data.dataset` → path; packages are named without `__init__`."""
    found = {}
    for package in ("sslflow", "pipelines"):
        for file in sorted((ROOT / package).rglob("*.py")):
            parts = file.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


@cache
def imported(module: str) -> frozenset[str]:
    """The project's modules that a module imports, anywhere in its text; packages left out."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(modules()[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(name for name in names if name in modules() and modules()[name].name != "__init__.py")


def reached(*start: str) -> set[str]:
    """The modules given and all that they import, directly or not."""
    found: set[str] = set()
    waiting = list(start)
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting += imported(module)
    return found


def methods(package: str = "") -> list[str]:
    """The modules that are found by name: of `package`, such as `"sslflow.methods."`, or of all of these."""
    return [name for name in modules() if name.startswith(package or tuple(FOUND_BY_NAME.values()))]


def needed_files(stage: str, method: str = "${item.method}") -> list[str]:
    """The project's own files that a stage's result depends on, `method` in place of the name of the method it runs.

    A dvc.yaml has one list for all methods, so it names what any method imports. `__init__.py` files hold nothing.
    """
    found = reached(f"sslflow.stages.{stage}")
    loaded = [package for finder, package in FOUND_BY_NAME.items() if finder in found and (stage, package) not in NEVER]
    for package in loaded:
        found = reached(*found, *methods(package)) - set(methods(package))
    files = {modules()[name].relative_to(ROOT).as_posix() for name in found}
    for name in found:
        for node in ast.walk(ast.parse(modules()[name].read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.endswith(".j2"):
                files |= {file.relative_to(ROOT).as_posix() for file in (ROOT / "sslflow").rglob(Path(node.value).name)}
    named = {f"{package.replace('.', '/')}{ASIDE.get((stage, package), method)}.py" for package in loaded}
    return sorted(files | named)


if __name__ == "__main__":
    print("    deps:")
    for file in needed_files(sys.argv[1]):
        print(f"      - {file}")
