"""What each file of the project imports, read from its text; as a script, the `deps` of a stage for dvc.yaml.

python tests/imports.py pretrain
"""

from __future__ import annotations

import ast
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LAYERS = (
    "commands",
    "use",
    "stages",
    "reporting",
    "audit",
    "pseudolabels",
    "examination",
    "dense",
    "evaluation",
    "methods",
    "adaptation",
    "audiovisual",
    "judging",
    "monitoring",
    "training",
    "ingest",
    "features",
    "views",
    "networks",
    "clustering",
    "drawing",
    "data",
    "runtime",
    "settings",
)
"""The rooms of sslflow/, from the top: a room imports from itself and from those below it."""
LOOSE = (
    "sslflow.cli",
    "sslflow.gpus",
    "sslflow.output",
    "sslflow.paths",
    "sslflow.progress",
    "sslflow.stagelog",
    "sslflow.stages.entry",
)
"""What can't change a result, so that no stage depends on it: names of files, what is printed, how a stage starts,
which GPU it gets."""
DATA = ("sslflow.methods.images.", "sslflow.methods.text.", "sslflow.methods.volumes.")
"""Packages of methods of which a run needs one, as its kind of data is."""
FOUND_BY_NAME = {
    "sslflow.training.method": DATA,
    "sslflow.adaptation.method": ("sslflow.methods.adaptation.",),
    "sslflow.audiovisual.method": ("sslflow.methods.clips.",),
}
"""Modules that find others by name: who imports the first may load any file of the second."""
NEVER = {(stage, DATA) for stage in ("pretrain_clips", "inspect_clips", "examine")}
"""Stages that import the first and load nothing of the second: methods for clips are `Method`s, too."""
ASIDE: dict[tuple[str, tuple[str, ...]], str] = {("adapt", DATA): "sslflow/methods/images/${adapt.companion}.py"}
"""Where a stage names a file of a package otherwise than as the method that it runs."""
SUBROOMS = ("ingest", "examination", "dense")
"""Rooms whose folders are rooms of their own: a stage that needs one needs nothing of the others."""
READERS = ("sslflow.features.store",)
"""Small readers in the room of a large writer, which a stage may need alone."""


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


def methods(package: str | tuple[str, ...] = "") -> list[str]:
    """The modules that are found by name: of a package, such as `"sslflow.methods.images."`, or of all of these."""
    return [name for name in modules() if name.startswith(package or sum(FOUND_BY_NAME.values(), ()))]


def needed_modules(stage: str) -> tuple[set[str], list[tuple[str, ...]]]:
    """The modules that a stage's result depends on whatever method it runs, and the packages of methods that it finds
    one in by name."""
    found = reached(f"sslflow.stages.{stage}")
    packages = [
        package for finder, package in FOUND_BY_NAME.items() if finder in found and (stage, package) not in NEVER
    ]
    for package in packages:
        found = reached(*found, *methods(package)) - set(methods(package))
    return found - set(LOOSE), packages


def room(module: str) -> str:
    """The folder that a stage names for a module, or its file: `sslflow/ingest/images`, `sslflow/ingest/records.py`."""
    parts = module.split(".")
    depth = 3 if parts[1] in SUBROOMS else 2
    alone = len(parts) <= depth or module in READERS or parts[1] == "stages"
    return f"{'/'.join(parts)}.py" if alone else "/".join(parts[:depth])


def needed(stage: str) -> list[str]:
    """The folders and files of the project's own code that a stage names among its `deps`."""
    found, packages = needed_modules(stage)
    rooms = {room(module) for module in found}
    named = {ASIDE.get((stage, package), _file(package)) for package in packages}
    return sorted({path for path in rooms if str(Path(path).parent) not in rooms} | named)


def _file(packages: tuple[str, ...]) -> str:
    """The file of the method that a stage runs, as dvc.yaml names it."""
    folder = "sslflow/methods/${data.kind}/" if packages == DATA else packages[0].replace(".", "/")
    return f"{folder}${{item.method}}.py"


if __name__ == "__main__":
    print(f"    deps: [{', '.join(needed(sys.argv[1]))}]")
