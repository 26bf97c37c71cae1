"""The whole of dvc.yaml, once, on a few dozen real images and some videos, as a user runs it; a new method in the same
copy of the project; and the stages of images without labels."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import av_media
import numpy as np
import pytest
import torch
from PIL import Image
from ruamel.yaml import YAML

from sslflow import paths
from sslflow.settings.params import load
from sslflow.stages import (
    audit,
    audit_clusters,
    extract,
    finetune,
    inspect,
    prepare,
    pretrain,
    preview,
    probe,
    pseudolabel,
    report,
    scan,
)
from tests.conftest import RECIPE, ROOT, copy_kept_folders, first_images

METHOD = '''"""Brightness: tell how bright an image is; a method that exists in this test alone."""

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


def settings() -> dict[str, Any]:
    """The recipe's, for runs of seconds on images in data/raw."""
    params = load(RECIPE)
    params["run"] |= {
        "methods": ["simclr"],
        "clip_methods": ["alignment"],
        "adapt_methods": ["gated_dance"],
        "seeds": [3],
    }
    params["compute"]["device"] = "cpu"
    params["encoder"] |= {"width": 4}
    params["train"] |= {"epochs": 2, "batch_size": 30}
    params["preview"] |= {"images": 3, "seconds": 0.2}
    params["inspect"] |= {"pictures": 12}
    params["pseudolabel"] |= {"restarts": 1}
    params["finetune"] |= {"fractions": [0.5, 0.1], "epochs": 1, "min_steps": 4}
    params["report"] |= {"map_images": 60, "queries": 2}
    params["data"] |= {"source": "idx", "path": "data/raw", "workers": 1}
    return params


def write(params: dict[str, Any], folder: Path) -> None:
    with (folder / "params.yaml").open("w") as handle:
        YAML(typ="safe").dump(params, handle)


def write_idx(folder: Path, name: str, images: np.ndarray, labels: np.ndarray) -> None:
    """Images and labels in MNIST's format."""
    folder.mkdir(parents=True, exist_ok=True)
    header = b"\x00\x00\x08\x03" + b"".join(size.to_bytes(4, "big") for size in (len(images), 28, 28))
    (folder / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + images.tobytes()))
    header = b"\x00\x00\x08\x01" + len(labels).to_bytes(4, "big")
    (folder / f"{name}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(header + labels.astype(np.uint8).tobytes()))


def write_image(file: Path, image: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image[0]).save(file)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project's own files, with images, a pair of domains and videos; all stages have run."""
    folder = tmp_path_factory.mktemp("whole") / "project"
    for name in ("sslflow", "pipelines", "tests", "recipes", ".dvc", "data/samples/fashion"):
        ignored = shutil.ignore_patterns("__pycache__", "tmp", "cache")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("dvc.yaml", ".dvcignore", ".gitignore", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    copy_kept_folders(folder)
    subprocess.run(["git", "init", "--quiet", folder], check=True)

    images, labels = first_images(180)
    write_idx(folder / "data/raw", "train", images[:90], labels[:90])
    write_idx(folder / "data/raw", "t10k", images[90:150], labels[90:150])
    for number, image in enumerate(images[150:]):
        write_image(folder / ("source", "target")[number % 3 == 0] / str(number % 2) / f"{number}.png", image)
    for number in range(4):
        file = folder / "videos" / str(number % 2) / f"{number}.mp4"
        av_media.make(file, seconds=3.0 + 0.1 * number, picture=("-c:v", "mjpeg"), sound=("-c:a", "aac"))

    params = settings()
    params["domains"][params["adapt"]["domains"]] |= {
        "source": "imagefolder", "target": "folder", "source_path": "source", "target_path": "target",
    }  # fmt: skip
    params["clips"][params["pretrain_clips"]["clips"]] |= {
        "source": "folders", "path": "videos", "seconds": 1.0, "side": 16, "test_fraction": 0.5,
    }  # fmt: skip
    for side in ("picture", "sound"):
        params["clip_encoders"][side] |= {"width": 4}
    params["clip_train"] |= {"epochs": 2, "batch_size": 4}
    params["clip_methods"]["alignment"] = {}
    params["adapt"] |= {"settings": ["as_is"]}
    params["adapt"]["train"] |= {"steps": 4, "batch_size": 6}
    write(params, folder)
    call(folder, "pipelines.runner", "--jobs", "1")
    return folder


def call(folder: Path, *command: str) -> str:
    """Output of a command in the project's folder; it must end well."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(1000)
def test_images_go_in_and_a_leaderboard_comes_out(project: Path) -> None:
    board = json.loads((project / paths.LEADERBOARD).read_text())
    assert set(board) == {"simclr", "start lite0", "random", "pixels", "scratch"}
    for metric in ("linear", "knn", "finetune", "pretrain_seconds"):
        assert board["simclr"][metric]["n"] == 1
    assert 0 <= board["pixels"]["linear"]["mean"] <= 1
    assert (project / paths.REPORT / "index.html").stat().st_size > 50_000
    assert (project / paths.metrics("score", "gated_dance-3")).exists()
    assert (project / paths.metrics("examine", "alignment-3")).exists()


@pytest.mark.timeout(1000)
def test_nothing_runs_twice(project: Path) -> None:
    again = call(project, "dvc", "repro")
    assert set(re.findall(r"Running stage '(\w+)", again)) == {"scan"}


@pytest.mark.timeout(1000)
def test_a_method_is_one_file_and_one_block_and_only_its_own_stages_run(project: Path) -> None:
    (project / "sslflow/methods/images/brightness.py").write_text(METHOD)
    params = load(project / "params.yaml")
    params["run"]["methods"].append("brightness")
    params["methods"]["brightness"] = BLOCK
    write(params, project)
    assert "brightness" in call(project, "sslflow.cli", "methods")
    assert "in order" in call(project, "sslflow.cli", "check")
    files = "tests/methods/test_conformance.py", "tests/test_architecture.py"
    rules = "test_deps_are_the_rooms_that_the_script_imports_from or test_params_are_what_the_script_reads"
    conformance = call(project, "pytest", "-q", *files, "-k", f"brightness or {rules}", "-p", "no:cacheprovider")
    assert int(re.findall(r"(\d+) passed", conformance)[-1]) > 30

    ran = re.findall(
        r"^(\S+) +\| ran in", call(project, "pipelines.runner", "probe@brightness-3", "--jobs", "1"), re.MULTILINE
    )
    assert set(ran) - {"scan"} == {"pretrain@brightness-3", "extract@brightness-3", "probe@brightness-3"}
    assert json.loads((project / paths.metrics("pretrain", "brightness-3")).read_text())["step"] == 6
    assert (project / paths.metrics("probe", "brightness-3")).exists()


def test_a_folder_without_labels_goes_through_the_stages_to_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    params = settings()
    params["run"] |= {"adapt_methods": [], "clip_methods": []}
    params["data"] |= {"source": "folder", "channels": 3, "image_size": 20}
    params |= {"domains": {}, "clips": {}}
    write(params, tmp_path)
    for number, image in enumerate(first_images(24)[0]):
        write_image(tmp_path / "data/raw" / f"{number % 3} deep" / f"{number}.png", image)
    (tmp_path / "data/raw/broken.jpg").write_bytes(b"no image")
    (tmp_path / "data/raw/gone.png").symlink_to("nowhere")

    try:
        scan.main()
        prepare.main()
        audit.main()
        preview.main("simclr")
        for stage in (pretrain, inspect, extract, pseudolabel, probe, finetune):
            stage.main("simclr", 3)
        audit_clusters.main("simclr")
        for control in ("random", "pixels"):
            probe.main(control, 3)
        finetune.main("scratch", 3)
        report.main()
    finally:
        torch.use_deterministic_algorithms(False)

    assert "no labels" in capsys.readouterr().out
    quarantine = (paths.PREPARED / "quarantine.csv").read_text()
    assert "broken.jpg" in quarantine
    assert "gone.png" in quarantine
    board = json.loads(paths.LEADERBOARD.read_text())
    assert "linear" not in board["simclr"]
    assert "rankme" in board["simclr"]
    assert (paths.pseudolabels("simclr", 3) / "clusters.png").exists()
    assert "no labels" in (paths.REPORT / "index.html").read_text().lower()
