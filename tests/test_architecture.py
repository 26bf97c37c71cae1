"""The house's rules: imports go downwards, and dvc.yaml says what stages really read."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import imports
import pytest
from imports import ROOT, modules
from ruamel.yaml import YAML

from pipelines.plan import outputs
from sslflow import check, places
from sslflow.params import load

# From the ground up. A module imports from its own layer and those below; never in a circle.
GROUND = {"checkpoint", "data", "device", "diagnostics", "distributed", "files", "kmeans", "named", "optim", "params"}
PARTS = {"adapter", "companion", "crops", "decoder", "discovery", "encoder", "heads", "method", "pictures"}
LAYERS = (
    GROUND | {"places", "progress", "rng", "sheets"},
    PARTS | {"schedules", "teacher", "tiles", "verdict", "views"},
    {"adaptation", "methods", "neighbourhood", "openness", "rejection"},
    {"adapt", "audiovisual", "domain", "evaluation", "features", "journal", "looks", "reporting", "train"},
    {"stages"},
    {"check"},
)
LEVEL = {name: number for number, names in enumerate(LAYERS) for name in names}
PIPELINES_MAY_IMPORT = {"sslflow.files", "sslflow.params", "sslflow.places", "sslflow.reporting.leaderboard"}
PIPELINE = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
SCRIPTS = {
    name: found[1] for name, stage in PIPELINE.items() if (found := re.search(r"sslflow\.stages\.(\w+)", stage["cmd"]))
}


def level(module: str) -> int:
    name = module.split(".")[1]
    assert name in LEVEL, f"{module} belongs to no layer: say in tests/test_architecture.py which"
    return LEVEL[name]


LIBRARY = [name for name, file in modules().items() if name.startswith("sslflow.") and file.name != "__init__.py"]


@pytest.mark.parametrize("module", [name for name in LIBRARY if name != "sslflow.cli"])
def test_imports_go_downwards(module: str) -> None:
    for other in imports.imported(module):
        assert other.startswith("sslflow."), f"{module} imports {other}: the library knows nothing of pipelines"
        assert level(other) <= level(module), f"{module} imports {other}, which stands above it"
        assert other not in imports.methods(), f"{module} imports {other}: methods are found by name"
        if module.startswith("sslflow.stages."):
            assert not other.startswith("sslflow.stages.") or other == "sslflow.stages.entry", "stages meet in files"


@pytest.mark.parametrize("module", LIBRARY)
def test_nothing_imports_itself_in_a_circle(module: str) -> None:
    assert module not in imports.reached(*imports.imported(module))


def test_pipelines_know_stage_names_and_little_else() -> None:
    for module in modules():
        if module.startswith("pipelines."):
            library = {name for name in imports.imported(module) if name.startswith("sslflow.")}
            assert library <= PIPELINES_MAY_IMPORT, module
            prefect = re.search(r"^\s*(from|import) prefect\b", modules()[module].read_text(), re.MULTILINE)
            assert not prefect or module == "pipelines.flows", f"{module}: Prefect is for flows.py alone"


def test_files_are_named_for_what_they_are_about() -> None:
    vague = {"utils", "util", "common", "helpers", "misc", "core", "base"}
    assert not [file for file in modules().values() if file.stem in vague]


def test_packages_hold_nothing_themselves() -> None:
    for name, file in modules().items():
        if file.name == "__init__.py":
            rest = [node for node in ast.parse(file.read_text()).body if not isinstance(node, ast.Expr)]
            named = [ast.unparse(node).partition(" ")[0] for node in rest]
            assert named in ([], ["__version__"]), f"{name}: dvc.yaml names no __init__.py"


def test_no_file_is_two_ideas() -> None:
    long = {name: lines for name, file in modules().items() if (lines := len(file.read_text().splitlines())) > 300}
    assert not long


def test_importing_is_light_and_has_no_effect(tmp_path: Path) -> None:
    heavy = ["torch", "dvc", "prefect", "numpy", "kornia", "timm", "sklearn", "matplotlib", "pandas"]
    code = f"import sys, sslflow, sslflow.cli; print(sorted(set({heavy!r}) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
    assert list(tmp_path.iterdir()) == []


# dvc.yaml


def test_every_stage_is_in_the_pipeline() -> None:
    assert set(SCRIPTS.values()) == set(check.stage_names())


@pytest.mark.parametrize("name", SCRIPTS)
def test_deps_are_what_the_script_imports(name: str) -> None:
    declared = [path for path in PIPELINE[name].get("deps", []) if path.startswith(("sslflow/", "sslflow"))]
    needed = imports.needed_files(SCRIPTS[name])
    as_it_should_be = "\n".join(f"      - {path}" for path in needed)
    assert sorted(declared) == needed, (
        f"dvc.yaml, {name}: missing {sorted(set(needed) - set(declared))}, "
        f"not imported {sorted(set(declared) - set(needed))}; it should be\n{as_it_should_be}"
    )


@pytest.mark.parametrize("name", SCRIPTS)
def test_params_are_what_the_script_reads(name: str) -> None:
    module = check.stage_module(SCRIPTS[name])
    sections = getattr(module, "SECTIONS", None) or check.stage_schemas(SCRIPTS[name], "simclr")
    outermost = {name for name in sections if not any(name.startswith(f"{other}.") for other in sections)}
    word = imports.ASIDE.get((SCRIPTS[name], "sslflow.methods."), "${item.method}")
    read = {name.replace("methods.simclr", f"methods.{word}") for name in outermost}
    assert sorted(PIPELINE[name].get("params", [])) == sorted(read)


def test_outs_are_where_places_says() -> None:
    run = load(ROOT / "params.yaml")["run"]
    runs = [(method, seed) for method in [*run["methods"], "random", "pixels", "scratch"] for seed in run["seeds"]]
    trained = (places.encoder, places.curve, places.pictures, places.verdict)
    per_run = (*trained, places.features, places.pseudolabels, places.predictions)
    known = {place(method, seed) for place in per_run for method, seed in runs}
    known |= {places.views(method) for method in run["methods"]}
    known |= {places.metrics(stage) for stage in check.stage_names()}
    known |= {places.metrics(stage, places.run_name(*one)) for stage in check.stage_names() for one in runs}
    known |= {places.metrics("augment", method) for method in run["methods"]}
    adapted = [(method, seed) for method in load(ROOT / "params.yaml")["adapt"]["methods"] for seed in run["seeds"]]
    known |= {places.adapted(*one) for one in adapted}
    known |= {places.metrics("adapt", places.run_name(*one)) for one in adapted}
    heard = [(method, seed) for method in load(ROOT / "params.yaml")["correspond"]["methods"] for seed in run["seeds"]]
    known |= {places.correspondence(*one) for one in heard}
    known |= {places.metrics("correspond", places.run_name(*one)) for one in heard}
    known |= {
        places.LISTING,
        places.PREPARED,
        places.DOMAINS_LISTING,
        places.DOMAINS,
        places.CLIPS_LISTING,
        places.CLIPS,
        places.LEADERBOARD,
        places.LEADERBOARD.with_suffix(".csv"),
        places.REPORT,
    }
    known |= {places.ARTIFACTS / "curves.csv"}
    assert not {Path(out) for out in outputs(ROOT)} - known
