"""Recipes are in order, and stay readable and true when `dvc exp run -S` has rewritten them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from dvc.utils.hydra import apply_overrides

from sslflow.commands import check
from sslflow.settings.params import Over, load, read
from sslflow.training.fit import fit
from sslflow.training.method import find
from tests.conftest import ROOT

RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
recipes = pytest.mark.parametrize("recipe", RECIPES, ids=lambda file: file.stem)


def rewritten(recipe: Path, folder: Path, *overrides: str) -> Path:
    """A copy of a recipe, as `dvc exp run -S` with these overrides leaves it."""
    file = Path(shutil.copy(recipe, folder / "params.yaml"))
    apply_overrides(file, list(overrides))
    return file


def changed(before: Path, after: Path) -> list[str]:
    """The lines after that were not there before, in order; the other lines are all there, in the same order."""
    old, new = (file.read_text().splitlines() for file in (before, after))
    assert len(old) == len(new)
    return [one for other, one in zip(old, new, strict=True) if one != other]


@recipes
def test_a_recipe_is_in_order(recipe: Path) -> None:
    assert set(check.check(recipe)["images"]) >= set(load(recipe)["run"]["methods"])


@recipes
def test_dvc_rewrites_the_one_line_that_it_changes(recipe: Path, tmp_path: Path) -> None:
    now = load(recipe)["encoder"]["width"]
    same = rewritten(recipe, tmp_path, f"encoder.width={now}")
    assert same.read_text() == recipe.read_text()
    for override, line in (
        ("train.lr=0.5", "  lr: 0.5"),
        ("methods.dino.views.local_scale=[0.1,0.5]", "      - 0.1"),
        ("run.seeds=[0,7]", "  - 7"),
    ):
        assert changed(recipe, rewritten(recipe, tmp_path, override)) == [line]
    comment = next(line for line in recipe.read_text().splitlines() if line.startswith("  batch_size: ")).partition(
        "#"
    )[2]
    (line,) = changed(recipe, rewritten(recipe, tmp_path, "train.batch_size=48"))
    assert line.startswith("  batch_size: 48 ")
    assert line.endswith(comment)


@recipes
def test_a_change_of_the_shared_section_reaches_the_methods_after_dvc_has_rewritten_the_file(
    recipe: Path, tmp_path: Path
) -> None:
    file = rewritten(recipe, tmp_path, "train.epochs=3", "views.blur=0.25", "+methods.simclr.train.warmup=0.2")
    shared = f"  lr: {load(recipe)['train']['lr']:g}".replace("0.003", "3e-3")
    assert file.read_text().count(f"{shared}\n") == 1
    file.write_text(file.read_text().replace(f"{shared}\n", "  lr: 0.125\n"))
    kind = find("simclr")
    schemas = {"methods.simclr.train": Over("train", fit), "methods.simclr.views": Over("views", kind.Views)}
    found = read(schemas, file)
    assert {name: found["methods.simclr.train"][name] for name in ("lr", "epochs", "warmup")} == {
        "lr": 0.125,
        "epochs": 3,
        "warmup": 0.2,
    }
    assert found["methods.simclr.views"]["blur"] == 0.25


def test_the_recipe_of_the_demo_was_shipped_as_the_project_s_settings() -> None:
    """Whoever changes recipes/demo.yaml changes params.yaml alike, and commits both; a user may change params.yaml."""
    recipe = git("rev-parse", "HEAD:recipes/demo.yaml")
    assert git("log", "--format=%h", f"--find-object={recipe}", "--", "params.yaml"), (
        "params.yaml never was what recipes/demo.yaml is now: cp recipes/demo.yaml params.yaml"
    )


def git(*words: str) -> str:
    """What git says in the project's folder; where it is no checkout, the test is skipped."""
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"git {words[0]}: {done.stderr.strip()}")
    return done.stdout.strip()
