"""The house's rules: imports go downwards, and dvc.yaml says what stages really read."""

from __future__ import annotations

import ast
import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path

import imports
import pytest
from imports import LAYERS, LOOSE, ROOT, modules
from ruamel.yaml import YAML

from pipelines.plan import outputs
from sslflow import paths
from sslflow.commands import check
from sslflow.settings.params import load, lookup, sections
from tests.conftest import RECIPE

PIPELINES_MAY_IMPORT = {
    "sslflow.gpus",
    "sslflow.ingest.contents",
    "sslflow.output",
    "sslflow.runtime.files",
    "sslflow.settings.params",
    "sslflow.paths",
    "sslflow.reporting.curves",
    "sslflow.reporting.leaderboard",
    "sslflow.reporting.running",
    "sslflow.reporting.verdicts",
    "sslflow.stagelog",
}
FLOWS = ("pipelines.flows", "pipelines.sweeps")
PIPELINE = {name: stage.get("do", stage) for name, stage in YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"].items()}
SCRIPTS = {
    name: found[1] for name, stage in PIPELINE.items() if (found := re.search(r"sslflow\.stages\.(\w+)", stage["cmd"]))
}


LIBRARY = [name for name, file in modules().items() if name.startswith("sslflow.") and file.name != "__init__.py"]


@pytest.mark.parametrize("module", [name for name in LIBRARY if name not in LOOSE])
def test_imports_go_downwards(module: str) -> None:
    for other in imports.imported(module):
        assert other.startswith("sslflow."), f"{module} imports {other}: the library knows nothing of pipelines"
        assert other not in imports.methods(), f"{module} imports {other}: methods are found by name"
        mine, its = module.split(".")[1], other.split(".")[1]
        if other not in LOOSE and its != mine:
            assert LAYERS.index(its) > LAYERS.index(mine), f"{module} imports {other}, which stands above it"
        if module.startswith("sslflow.stages."):
            assert not other.startswith("sslflow.stages.") or other in LOOSE, "stages meet in files"


def test_every_file_lies_in_a_room() -> None:
    rooms = {name.split(".")[1] for name in LIBRARY if name not in LOOSE}
    assert rooms == set(LAYERS)


def test_what_no_stage_depends_on_bears_no_result() -> None:
    """Loose files name files, print and wait; they neither compute nor read what a result is made of."""
    for name in set(LOOSE) - {"sslflow.cli"}:
        assert not imports.imported(name) - set(LOOSE), name
        heavy = re.search(r"^\s*(from|import) (torch|numpy|PIL|pyarrow)\b", modules()[name].read_text(), re.MULTILINE)
        assert not heavy, name


@pytest.mark.parametrize("module", LIBRARY)
def test_nothing_imports_itself_in_a_circle(module: str) -> None:
    assert module not in imports.reached(*imports.imported(module))


def test_pipelines_know_stage_names_and_little_else() -> None:
    for module in modules():
        if module.startswith("pipelines."):
            library = {name for name in imports.imported(module) if name.startswith("sslflow.")}
            assert library <= PIPELINES_MAY_IMPORT, module
            prefect = re.search(r"^\s*(from|import) prefect\b", modules()[module].read_text(), re.MULTILINE)
            assert not prefect or module in FLOWS, f"{module}: Prefect is for {' and '.join(FLOWS)} alone"


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
def test_deps_are_the_rooms_that_the_script_imports_from(name: str) -> None:
    declared = {path for path in PIPELINE[name].get("deps", []) if path.startswith("sslflow/")}
    if PIPELINE[name].get("always_changed"):
        assert not declared, f"{name} runs every time: its deps would do nothing"
        return
    script = SCRIPTS[name]
    found, _ = imports.needed_modules(script)
    files = {imports.modules()[module].relative_to(ROOT).as_posix() for module in found}
    by_name = {path for path in declared if "${" in path}
    rooms = declared - by_name
    outside = {file for file in files if not any(file == room or file.startswith(f"{room}/") for room in rooms)}
    unreached = {room for room in rooms if not any(file == room or file.startswith(f"{room}/") for file in files)}
    should = f"it should be\n{imports.needed(script)}"
    assert not outside, f"dvc.yaml, {name}: imported and not named: {sorted(outside)}; {should}"
    assert not unreached, f"dvc.yaml, {name}: named and not imported: {sorted(unreached)}; {should}"
    assert by_name == {path for path in imports.needed(script) if "${" in path}, should


ITEMS = {
    "method": ("simclr", "${item.method}"),
    "clip_method": ("alignment", "${item.method}"),
    "adaptation_method": ("dance", "${item.method}"),
    "companion": ("mae", "${adapt.companion}"),
    "domains": ("${key}", "${key}"),
    "clips": ("${key}", "${key}"),
    "kind": ("images", "images"),
}
"""What `schemas` of a stage may be asked about, by the names of its parameters, and how dvc.yaml names that."""


@pytest.mark.parametrize("name", SCRIPTS)
def test_params_are_what_the_script_reads(name: str) -> None:
    module, stage = check.stage_module(SCRIPTS[name]), PIPELINE[name]
    read = set(getattr(module, "SECTIONS", ()))
    asked = {} if read else {one: ITEMS[one][0] for one in inspect.signature(module.schemas).parameters}
    read = read or sections(module.schemas(**asked))
    for one in asked:
        read = {re.sub(rf"\.{re.escape(ITEMS[one][0])}$", f".{ITEMS[one][1]}", place) for place in read}
    declared = set()
    for place in stage.get("params", []):
        whole = {f"{place}.{key}" for key in lookup(load(RECIPE), place)}
        declared |= whole if whole and whole <= read else {place}
    assert declared == read, f"dvc.yaml, {name}"


def test_outs_are_where_places_says(tmp_path: Path) -> None:
    shutil.copytree(ROOT / ".dvc", tmp_path / ".dvc", ignore=shutil.ignore_patterns("tmp", "cache"))
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    shutil.copy(RECIPE, tmp_path / "params.yaml")
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    params = load(RECIPE)
    run = params["run"]

    def runs(*methods: str) -> list[tuple[str, int]]:
        return [(method, seed) for method in methods for seed in run["seeds"]]

    images, heard, adapted = (runs(*run[name]) for name in ("methods", "clip_methods", "adapt_methods"))
    controls = runs(*{*run["controls"], *run["tuned_controls"]})
    detected = runs(*{*run["detect"], *run["detect_controls"]})
    segmented = runs(*{*run["segment"], *run["segment_controls"]})
    estimated = runs(*{*run["depth"], *run["depth_controls"]})
    asked = runs(*{*run["language"], *run["language_controls"]})
    judged = (paths.trained, paths.curve, paths.pictures, paths.verdict)
    known = {place(*one) for place in (*judged, paths.encoder, paths.features, paths.pseudolabels) for one in images}
    known |= {place(*one) for place in (paths.predictions, paths.few, paths.tuned) for one in images + controls}
    known |= {place(*one) for place in (paths.segmented, paths.segmenter) for one in segmented}
    known |= {place(*one) for place in (paths.detected, paths.detector) for one in detected}
    known |= {paths.depths(*one) for one in estimated}
    known |= {paths.language(*one) for one in asked}
    known |= {place(*one, paths.OF_CLIPS) for place in judged for one in heard}
    known |= {place for one in heard for place in (paths.examined(*one), paths.clip_encoder(*one, "picture").parent)}
    known |= {paths.adapted(*one) for one in adapted}
    known |= {place(method) for place in (paths.views, paths.clusters) for method in run["methods"]}
    known |= {paths.clustering(*one) for one in images}
    known |= {paths.domains(name) for name in params["domains"]} | {paths.clips(name) for name in params["clips"]}
    of_images = images + controls + segmented + detected + estimated
    items = {paths.run_name(*one) for one in of_images + asked + heard + adapted}
    items |= {*run["methods"], *params["domains"], *params["clips"], ""}
    known |= {paths.metrics(stage, item) for stage in check.stage_names() for item in items}
    known |= {paths.LISTINGS, paths.PREPARED, paths.AUDIT, paths.REPORT, paths.SCORES}
    known |= {paths.LEADERBOARD, paths.LEADERBOARD.with_suffix(".csv"), paths.ARTIFACTS / "curves.csv"}
    assert not {Path(out) for out in outputs(tmp_path)} - known
