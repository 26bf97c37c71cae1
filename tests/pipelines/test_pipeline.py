"""The whole of dvc.yaml, on a few dozen real images, as a user runs it."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import av_media
import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML

from sslflow.settings.params import load
from tests.conftest import RECIPE, ROOT

STAGES = {
    "adapt",
    "augment",
    "clips",
    "domains",
    "examine",
    "extract",
    "finetune",
    "finetune_control",
    "inspect",
    "inspect_clips",
    "prepare",
    "pretrain",
    "pretrain_clips",
    "probe",
    "probe_control",
}


def write_idx(folder: Path, name: str, images: np.ndarray, labels: np.ndarray) -> None:
    """Images and labels in MNIST's format."""
    folder.mkdir(parents=True, exist_ok=True)
    header = b"\x00\x00\x08\x03" + b"".join(size.to_bytes(4, "big") for size in (len(images), 28, 28))
    (folder / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + images.tobytes()))
    header = b"\x00\x00\x08\x01" + len(labels).to_bytes(4, "big")
    (folder / f"{name}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(header + labels.astype(np.uint8).tobytes()))


@pytest.fixture
def project(tmp_path, fashion) -> Path:
    """A copy of the project's own files, with settings for a run of seconds."""
    folder = tmp_path / "project"
    for name in ("sslflow", "pipelines", ".dvc", "data/samples/fashion"):
        ignored = shutil.ignore_patterns("__pycache__", "tmp", "cache", "*.gz")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("dvc.yaml", ".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, folder / name)
    subprocess.run(["git", "init", "--quiet", folder], check=True)
    for file in (ROOT / "artifacts").rglob(".gitkeep"):  # a checkout has them
        kept = folder / file.relative_to(ROOT)
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.touch()

    params = load(RECIPE)
    params["run"] |= {"methods": ["simclr"], "seeds": [3]}
    params["encoder"] |= {"width": 4}
    params["train"] |= {"epochs": 2, "batch_size": 30}
    params["augment"] |= {"seconds": 0.2}
    params["finetune"] |= {"fractions": [0.5, 0.1], "epochs": 1, "min_steps": 4}
    params["data"] |= {"source": "idx", "path": "data/raw"}
    params["domains"] |= {"source": "imagefolder", "target": "folder", "source_path": "source", "target_path": "target"}
    params["clips"]["instruments"] |= {
        "source": "folders",
        "path": "videos",
        "seconds": 1.0,
        "side": 16,
        "test_fraction": 0.5,
    }
    for side in ("picture", "sound"):
        params["clip_encoders"][side] |= {"width": 4}
    params["clip_train"] |= {"epochs": 2, "batch_size": 4}
    params["clip_views"] |= {"window": 0.5}
    params["adapt"] |= {"settings": ["as_is"], "methods": ["gated_dance"]}
    params["adapt"]["train"] |= {"steps": 4, "batch_size": 6}
    for number, image in enumerate(fashion[0][150:180]):
        file = folder / ("source", "target")[number % 3 == 0] / str(number % 2) / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0]).save(file)
    for number in range(4):
        file = folder / "videos" / str(number % 2) / f"{number}.mp4"
        av_media.make(file, seconds=3.0 + 0.1 * number, picture=("-c:v", "mjpeg"), sound=("-c:a", "aac"))
    write(params, folder)
    return folder


def write(params: dict, folder: Path) -> None:
    with (folder / "params.yaml").open("w") as handle:
        YAML(typ="safe").dump(params, handle)


def call(folder: Path, *command: str) -> str:
    """Output of a command in the project's folder; it must end well."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(420)
def test_images_go_in_and_a_leaderboard_comes_out_and_nothing_runs_twice(project, fashion):
    images, labels = fashion
    write_idx(project / "data/raw", "train", images[:90], labels[:90])
    write_idx(project / "data/raw", "t10k", images[90:150], labels[90:150])
    call(project, "pipelines.runner", "--jobs", "1")

    board = json.loads((project / "artifacts/metrics/leaderboard.json").read_text())
    assert set(board) == {"simclr", "random", "pixels", "scratch"}
    for metric in ("linear", "knn", "finetune", "pretrain_seconds"):
        assert board["simclr"][metric]["n"] == 1
    assert 0 <= board["pixels"]["linear"]["mean"] <= 1
    assert (project / "artifacts/report/index.html").stat().st_size > 50_000

    again = call(project, "dvc", "repro")
    assert not [stage for stage in STAGES if f"Running stage '{stage}" in again]

    params = YAML(typ="safe").load((project / "params.yaml").read_text())
    params["probe"]["knn"]["k"] = 5
    write(params, project)
    changed = call(project, "dvc", "repro")
    ran = {stage for stage in STAGES if f"Running stage '{stage}" in changed}
    assert ran == {"probe", "probe_control"}


@pytest.mark.timeout(420)
def test_a_folder_without_labels_runs_to_the_report_without_other_domains_and_videos(project, fashion):
    params = YAML(typ="safe").load((project / "params.yaml").read_text())
    params["run"] |= {"adapt_methods": [], "clip_methods": []}
    params["data"] |= {"source": "folder", "channels": 3, "image_size": 20}
    write(params, project)
    for number, image in enumerate(fashion[0][:24]):
        file = project / "data/raw" / f"{number % 3} deep" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0]).save(file)
    (project / "data/raw/broken.jpg").write_bytes(b"no image")
    (project / "data/raw/gone.png").symlink_to("nowhere")

    output = call(project, "pipelines.runner", "--jobs", "1")
    assert "no labels" in output
    quarantine = (project / "data/prepared/quarantine.csv").read_text()
    assert "broken.jpg" in quarantine
    assert "gone.png" in quarantine
    board = json.loads((project / "artifacts/metrics/leaderboard.json").read_text())
    assert "linear" not in board["simclr"]
    assert "rankme" in board["simclr"]
    assert (project / "artifacts/pseudolabels/simclr-3/clusters.png").exists()
    assert "no labels" in (project / "artifacts/report/index.html").read_text().lower()
    assert not list((project / "artifacts/metrics/examine").glob("*.json"))
