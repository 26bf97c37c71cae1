"""Recipes are in order, and stay readable and true when `dvc exp run -S` has rewritten them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from dvc.utils.hydra import apply_overrides

from sslflow.commands import check
from sslflow.settings.params import Over, load, read
from sslflow.training.fit import fit
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
    content = load(recipe)
    untouched = rewritten(recipe, tmp_path, f"encoder.width={content['encoder']['width']}")
    assert untouched.read_text() == recipe.read_text()
    assert changed(recipe, rewritten(recipe, tmp_path, "train.lr=0.5")) == ["  lr: 0.5"]
    seeds = [*content["run"]["seeds"][:-1], 77]
    assert changed(recipe, rewritten(recipe, tmp_path, f"run.seeds={seeds}")) == ["  - 77"]


@recipes
def test_a_change_of_the_shared_section_reaches_the_methods_after_dvc_has_rewritten_the_file(
    recipe: Path, tmp_path: Path
) -> None:
    method = load(recipe)["run"]["methods"][0]
    overrides = ("train.warmup=0.3", "train.clip=0.5", f"+methods.{method}.train.warmup=0.2")
    file = rewritten(recipe, tmp_path, *overrides)
    text, edits = re.subn(r"(?<=\ntrain:)(.+?\n  lr: )\S+", r"\g<1>0.125", file.read_text(), count=1, flags=re.DOTALL)
    assert edits == 1
    file.write_text(text)
    section = f"methods.{method}.train"
    found = read({section: Over("train", fit)}, file)[section]
    assert {name: found[name] for name in ("lr", "clip", "warmup")} == {"lr": 0.125, "clip": 0.5, "warmup": 0.2}


def test_the_recipe_of_the_demo_was_shipped_as_the_project_s_settings() -> None:
    """Whoever changes recipes/demo.yaml changes params.yaml alike, and commits both; a user may change params.yaml."""
    recipe = git("rev-parse", "HEAD:recipes/demo.yaml")
    assert f"{recipe} params.yaml" in git("rev-list", "--objects", "HEAD", "--", "params.yaml").splitlines(), (
        "params.yaml never was what recipes/demo.yaml is now: cp recipes/demo.yaml params.yaml"
    )


def git(*words: str) -> str:
    """What git says in the project's folder; where it is no checkout, the test is skipped."""
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"git {words[0]}: {done.stderr.strip()}")
    return done.stdout.strip()
