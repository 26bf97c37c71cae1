"""A new method is one new file and one new block of settings: nothing else in the project has to know of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from sslflow.settings.params import load
from tests.conftest import RECIPE, ROOT
from tests.pipelines.test_pipeline import write_idx

FILE = '''"""Brightness: tell how bright an image is; a method that exists in this test alone."""

from __future__ import annotations

import torch.nn.functional as F
from torch import nn

from sslflow.networks.encoder import Encoder
from sslflow.training.method import Batch, Losses, Method
from sslflow.settings.params import Positive
from sslflow.views.images import CropView


class Brightness(Method):
    Views = CropView

    def __init__(self, encoder: Encoder, *, scale: Positive = 1.0) -> None:
        super().__init__()
        self.encoder, self.head, self.scale = encoder, nn.Linear(encoder.dim, 1), scale

    def training_step(self, batch: Batch) -> Losses:
        (view,) = batch.views
        told = self.head(self.encoder(view))[:, 0]
        return {"loss": self.scale * F.mse_loss(told, view.mean(dim=(1, 2, 3)))}
'''
BLOCK = {"scale": 2.0, "train": {"epochs": 2, "batch_size": 30}}


@pytest.fixture
def project(tmp_path, fashion) -> Path:
    """A copy of the project with 90 images, the new file, and the new block."""
    folder = tmp_path / "project"
    for name in ("sslflow", "pipelines", "tests", "recipes", ".dvc", "data/samples/fashion"):
        ignored = shutil.ignore_patterns("__pycache__", "tmp", "cache")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("dvc.yaml", ".dvcignore", ".gitignore", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    subprocess.run(["git", "init", "--quiet", folder], check=True)
    images, labels = fashion
    write_idx(folder / "data/raw", "train", images[:90], labels[:90])
    write_idx(folder / "data/raw", "t10k", images[90:150], labels[90:150])

    (folder / "sslflow/methods/images/brightness.py").write_text(FILE)
    params = load(RECIPE)
    # Settings of the run, which any user has of their own, and the block.
    params["data"]["source"] = "idx"
    params["run"]["methods"] = ["brightness"]
    params["methods"]["brightness"] = BLOCK
    with (folder / "params.yaml").open("w") as handle:
        YAML(typ="safe").dump(params, handle)
    return folder


def call(folder: Path, *command: str) -> str:
    """Output of a command in the project's folder; it must end well."""
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_one_file_and_one_block_are_enough(project):
    assert "brightness" in call(project, "sslflow.cli", "methods")
    assert "in order" in call(project, "sslflow.cli", "check")
    conformance = call(
        project, "pytest", "-q", "tests/methods/images/test_methods.py", "-k", "brightness", "-p", "no:cacheprovider"
    )
    assert "passed" in conformance
    architecture = "test_deps_are_the_rooms_that_the_script_imports_from or test_params_are_what_the_script_reads"
    assert "passed" in call(project, "pytest", "-q", "tests/test_architecture.py", "-k", architecture)

    call(project, "pipelines.runner", "probe@brightness-0", "inspect@brightness-0", "--jobs", "1")
    metrics = json.loads((project / "artifacts/metrics/pretrain/brightness-0.json").read_text())
    assert metrics["step"] == 6
    assert (project / "artifacts/metrics/probe/brightness-0.json").exists()
    assert (project / "artifacts/pictures/brightness-0.png").exists()
    assert (project / "artifacts/verdicts/brightness-0.json").exists()
