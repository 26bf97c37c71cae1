"""DVC's other ways to run: experiments in a copy of the project, raw images that DVC keeps. With DVC itself, on a
project of two stages: about four seconds a run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipelines.leftovers import find
from pipelines.plan import plan
from sslflow import paths
from sslflow.settings.params import load
from sslflow.stages import scan
from tests import tiny
from tests.conftest import ROOT, first_images
from tests.pipelines.test_pipeline import write_image


def call(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    author = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment = {**os.environ, **author, "PATH": path, "PYTHONPATH": str(ROOT), "DVC_NO_ANALYTICS": "1"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def commit(folder: Path) -> None:
    assert call(folder, "git", "add", "-A").returncode == 0
    assert call(folder, "git", "commit", "--quiet", "-m", "as it is").returncode == 0


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A committed project of the stages scan and prepare, with a few images in data/raw that nobody committed."""
    folder = tmp_path / "project"
    (folder / "data/samples").mkdir(parents=True)
    (folder / "data/samples/README.md").touch()
    shutil.copytree(ROOT / ".dvc", folder / ".dvc", ignore=shutil.ignore_patterns("tmp", "cache"))
    for name in (".gitignore", ".dvcignore"):
        shutil.copy(ROOT / name, folder / name)
    params = load(ROOT / "recipes/cpu.yaml")
    params["data"] |= {"image_size": 12, "channels": 1, "workers": 1}
    with (folder / "params.yaml").open("w") as handle:
        YAML().dump(params, handle)  # block style: `-S` reads no colon within a word of a flow mapping
    pipeline = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    stages = {name: pipeline[name] for name in ("scan", "prepare")}
    stages["prepare"]["deps"] = ["data/listings/data.csv"]
    with (folder / "dvc.yaml").open("w") as handle:
        YAML(typ="safe").dump({"stages": stages}, handle)
    call(folder, "git", "init", "--quiet", ".")
    for number, image in enumerate(first_images(6)[0]):
        write_image(folder / f"data/raw/{number}.png", image)
    commit(folder)
    return folder


def experiment(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return call(folder, sys.executable, "-m", "dvc", "exp", "run", "--temp", "--name", "tried", *words)


def images(folder: Path) -> int:
    """How many the experiment prepared, by what DVC keeps of it."""
    (folder / "got.json").unlink(missing_ok=True)
    words = ("artifacts/metrics/prepare.json", "--rev", "tried", "-o", "got.json")
    done = call(folder, sys.executable, "-m", "dvc", "get", ".", *words)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "got.json").read_text())["images"]


@pytest.mark.timeout(120)
def test_an_experiment_in_a_copy_says_which_setting_makes_it_work_and_it_does(project: Path) -> None:
    done = experiment(project, "-S", "data.image_size=16")
    said = done.stdout + done.stderr
    assert done.returncode
    assert "data.path: data/raw is not in this copy of the project" in said
    assert f"set data.path to the whole path, {project}/data/raw; or `dvc add data/raw`" in said
    done = experiment(project, "-S", "data.image_size=16", "-S", f"data.path={project}/data/raw")
    assert done.returncode == 0, done.stdout + done.stderr
    assert images(project) == 6


@pytest.mark.timeout(120)
def test_raw_images_that_dvc_keeps_are_brought_along(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    added = call(project, sys.executable, "-m", "dvc", "add", "data/raw")
    assert added.returncode == 0, added.stderr
    commit(project)
    done = experiment(project, "-S", "data.image_size=16")
    assert done.returncode == 0, done.stdout + done.stderr
    assert images(project) == 6
    monkeypatch.chdir(project)
    assert [stage.name for stage in plan()] == ["scan", "prepare"]
    assert find() == []


def test_what_dvc_add_keeps_is_no_stage_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny.make(tmp_path / "project")
    monkeypatch.chdir(folder)
    assert call(folder, sys.executable, "-m", "dvc", "add", "source.txt").returncode == 0
    assert (folder / "source.txt.dvc").exists()
    found = {stage.name: stage for stage in plan()}
    assert set(found) == {"prepare", "pretrain@a-0", "pretrain@b-0", "report"}
    assert found["prepare"].after == ()
    process = tiny.start("runner", folder, "--jobs", "2")
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    (folder / "source.txt").write_text("other")
    assert {stage.name: stage.state for stage in plan()}["prepare"] == "stale"


@pytest.mark.parametrize(
    ("section", "values", "setting"),
    [
        ("data", {"source": "folder", "path": "mine", "image_size": 8, "channels": 1}, "data.path"),
        ("domains.pair", {"source": "imagefolder", "source_path": "mine", "target": "folder", "target_path": "other",
                          "image_size": 8, "channels": 1}, "domains.pair.source_path"),
        ("clips.set", {"source": "folders", "path": "mine"}, "clips.set.path"),
        ("adapt", {"weights": "mine"}, "adapt.weights"),
        ("pretrain_clips", {"start": "mine"}, "pretrain_clips.start"),
    ],
)  # fmt: skip
def test_whatever_a_copy_lacks_is_named(section: str, values: dict, setting: str, tmp_path, monkeypatch) -> None:
    project = tmp_path / "project"
    (project / "mine").mkdir(parents=True)
    copy = project / ".dvc/tmp/exps/standalone/tmpx"
    (copy / "mine").mkdir(parents=True)
    (copy / "mine/.gitkeep").touch()
    params: dict = {"data": {"source": "samples:fashion", "image_size": 8, "channels": 1}, "domains": {}, "clips": {}}
    outer, _, inner = section.partition(".")
    params[outer] = {inner: values} if inner else values
    with (copy / "params.yaml").open("w") as handle:
        YAML().dump(params, handle)  # block style: `-S` reads no colon within a word of a flow mapping
    monkeypatch.chdir(copy)
    with pytest.raises(ValueError, match=rf"{setting}: mine is not in this copy .* whole path, {project}/mine"):
        scan.main()
    assert not paths.LISTINGS.exists()
