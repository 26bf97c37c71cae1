"""Recipes are in order, and stay readable and true when `dvc exp run -S` has rewritten them."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dvc.utils.hydra import apply_overrides

from sslflow.commands import check
from sslflow.networks.starts import Start
from sslflow.networks.weights import given
from sslflow.settings.params import Over, ParamsError, checked, load, read
from sslflow.settings.sections import data_kind
from sslflow.stages import pretrain
from sslflow.training.continued import Continued
from sslflow.training.fit import fit
from sslflow.training.ingredients import build, of_examples
from sslflow.training.method import Method, find
from sslflow.views.images import Views
from tests.cases import MemoryImages
from tests.conftest import ROOT
from tests.text_fixtures import MemoryText
from tests.volume_fixtures import MemoryVolumes

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
    content = load(recipe)
    assert set(check.check(recipe)[data_kind(content)]) >= set(content["run"]["methods"])


@recipes
def test_dvc_rewrites_the_one_line_that_it_changes(recipe: Path, tmp_path: Path) -> None:
    content = load(recipe)
    name, value = next((name, value) for name, value in content["data"].items() if isinstance(value, int))
    untouched = rewritten(recipe, tmp_path, f"data.{name}={value}")
    assert untouched.read_text() == recipe.read_text()
    train = "train" if content["run"]["methods"] else "clip_train"
    found = changed(recipe, rewritten(recipe, tmp_path, f"{train}.lr=0.5"))
    assert [line.partition("#")[0].rstrip() for line in found] == ["  lr: 0.5"]
    seeds = [*content["run"]["seeds"][:-1], 77]
    assert changed(recipe, rewritten(recipe, tmp_path, f"run.seeds={seeds}")) == ["  - 77"]


@pytest.mark.parametrize("recipe", [one for one in RECIPES if load(one)["run"]["methods"]], ids=lambda file: file.stem)
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


def images(content: dict[str, Any]) -> MemoryImages:
    """Eight of noise."""
    shape = (8, content["data"]["channels"], 64, 64)
    return MemoryImages(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8), np.arange(8) % 2)


def miniature(name: str, content: dict[str, Any]) -> tuple[Method, Views, Any, dict[str, Any]]:
    """A method as a recipe has it, on eight images of 64 pixels, or a few small volumes or verses."""
    problems: list[str] = []
    settings = checked(pretrain.schemas(name), content, problems)
    assert not problems
    made: dict[str, Callable[[], Any]] = {"images": lambda: images(content), "text": MemoryText}
    data: Any = (made | {"volumes": lambda: MemoryVolumes(8)})[data_kind(content)]()
    kind, block = find(name), f"methods.{name}"
    start = Continued(**settings[f"{block}.start"])

    def encoder(weights: str) -> Any:
        return given(Start(**content["starts"][weights] | {"side": 64}), data.format)

    words = settings.get(f"{block}.text_encoder", {})
    asked = dict(of_examples(data, data.pretraining_rows, settings["encoder"], text_encoder=words))
    asked |= {"labels": lambda: torch.arange(8) % 2}
    if start.weights != "random":
        asked |= {"encoder": lambda: encoder(start.weights)}
    if start.teacher != "random":
        asked |= {"teacher": lambda: encoder(start.teacher)}
    torch.manual_seed(0)
    method = build(kind, asked, settings[block])
    train = settings[f"{block}.train"] | {"epochs": 1, "batch_size": len(data.pretraining_rows) // 2, "compile": False}
    return method, kind.Views(data.format, **settings[f"{block}.views"]), data, train


RUN = [(one.stem, name) for one in RECIPES for name in load(one)["run"]["methods"] if one.stem not in ("demo", "full")]


@pytest.mark.parametrize(("recipe", "name"), RUN)
def test_what_a_recipe_runs_trains(recipe: str, name: str) -> None:
    method, views, data, train = miniature(name, load(ROOT / "recipes" / f"{recipe}.yaml"))
    before = [parameter.clone() for parameter in method.parameters()]
    steps = list(fit(method, views, data, torch.device("cpu"), 0, **train))
    assert len(steps) == 2
    assert all(torch.isfinite(step.losses["loss"]) for step in steps)
    assert any(not torch.equal(*pair) for pair in zip(before, method.parameters(), strict=True))


def test_a_method_may_begin_otherwise_than_the_others() -> None:
    content = load(ROOT / "recipes" / "continue.yaml")
    continued, small = (miniature(name, content)[0] for name in ("simclr", "distillation"))
    assert continued.encoder.settings["name"] == "tf_efficientnet_lite0"
    assert small.encoder.settings["name"] == content["encoder"]["name"] == "resnet18"


def test_a_method_begins_from_random_weights_or_from_those_of_all(tmp_path: Path) -> None:
    """Others no stage would know to have changed."""
    recipe = (ROOT / "recipes" / "cpu.yaml").read_text()
    file = tmp_path / "params.yaml"
    file.write_text(recipe.replace("{weights: random}", "{weights: other}", 1))
    with pytest.raises(ParamsError, match=r"methods.rotation.start.weights: expected random, or what .* \(lite0\)"):
        check.check(file)


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
