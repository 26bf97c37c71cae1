"""The small project that `benchmarks.faults` harms, and who is at work in a copy of it."""

from __future__ import annotations

import gzip
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
from ruamel.yaml import YAML

from sslflow.settings.params import load
from sslflow.stages import pretrain
from sslflow.stages.entry import run

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "data" / "samples" / "fashion"
TARGET = "probe@rotation-0"
TRAIN, TEST = 240, 80


def build(work: Path) -> None:
    """Lay down, unless they are there, `bare` (nothing has run), `ready` (prepared) and `done` (all has run), and how
    many seconds it took."""
    if (work / "took.json").exists():
        return
    shutil.rmtree(work, ignore_errors=True)
    bare, ready, done = work / "bare", work / "ready", work / "done"
    _write(bare)
    seconds = {}
    shutil.copytree(bare, ready)
    _run(ready, "prepare")
    shutil.copytree(bare, done)
    start = time.monotonic()
    _run(done, TARGET)
    seconds["runner"] = time.monotonic() - start
    shutil.copytree(ready, work / "timed")
    start = time.monotonic()
    Stage(work / "timed").communicate(None)
    seconds["pretrain"] = time.monotonic() - start
    shutil.rmtree(work / "timed")
    (work / "took.json").write_text(json.dumps(seconds))
    print(f"undisturbed: {seconds}", flush=True)


def _write(folder: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__", "tmp", "cache")
    for name in ("sslflow", "pipelines", "recipes", ".dvc"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("dvc.yaml", "prefect.yaml", ".dvcignore", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    for pattern in ("artifacts/*/.gitkeep", "artifacts/metrics/*/.gitkeep", "data/*/.gitkeep"):
        for kept in ROOT.glob(pattern):
            place = folder / kept.relative_to(ROOT)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()
    # A state of its own: that of a folder is kept by the folder's name elsewhere, and would outlive a trial.
    (folder / ".dvc/config.local").write_text("[core]\n    no_scm = true\n    site_cache_dir = work/dvc\n")
    for name, part, count in (("train", "train", TRAIN), ("t10k", "t10k", TEST)):
        images = gzip.decompress((SAMPLE / f"{part}-images-idx3-ubyte.gz").read_bytes())[16:]
        labels = gzip.decompress((SAMPLE / f"{part}-labels-idx1-ubyte.gz").read_bytes())[8:]
        raw, size = folder / "data/raw", count.to_bytes(4, "big")
        raw.mkdir(parents=True, exist_ok=True)
        side = (28).to_bytes(4, "big")
        (raw / f"{name}-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + size + side * 2 + images[: count * 784])
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + size + labels[:count])
    (folder / "data/samples").mkdir()
    (folder / "data/samples/README.md").write_text("none\n")
    with (folder / "params.yaml").open("w") as handle:
        YAML(typ="safe").dump(_settings(), handle)


def _settings() -> dict[str, Any]:
    params = load(ROOT / "recipes/full.yaml")
    params["run"] |= {"methods": ["rotation"], "clip_methods": [], "adapt_methods": [], "controls": [], "seeds": [0]}
    params["run"] |= {"tuned_controls": []}
    params["domains"] = params["clips"] = params["starts"] = {}
    params["compute"] |= {"device": "cpu", "threads": 1}
    params["encoder"] |= {"width": 8}
    params["train"] |= {"epochs": 6, "batch_size": 30}
    params["methods"]["rotation"] = {"train": {"epochs": 6, "batch_size": 30}}
    params["pretrain"] |= {"log_every": 8, "diagnostics": 60, "checkpoint_seconds": 0.1}
    params["data"] |= {"source": "idx", "path": "data/raw", "workers": 1, "image_size": 28, "channels": 1}
    return params


class Stage:
    """The stage `pretrain` in a copy of the project, as a process like any other, but forked from this one, which has
    imported all that takes seconds; what of `subprocess.Popen` is of use here."""

    def __init__(self, folder: Path) -> None:
        self._said = folder / "work" / f"said-{time.monotonic_ns()}"
        self._process = multiprocessing.get_context("fork").Process(target=_stage, args=(folder, self._said))
        self._process.start()
        self.pid = self._process.pid or 0
        self.kill = self._process.kill

    @property
    def returncode(self) -> int | None:
        """As it ended; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """`returncode`."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> None:
        """Raises `TimeoutExpired` where it is still running then."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("pretrain", timeout or 0)

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """Wait, and what it said."""
        self.wait(timeout)
        return self._said.read_text(errors="replace") if self._said.exists() else "", None


def _stage(folder: Path, said: Path) -> None:
    os.setsid()
    os.chdir(folder)
    said.parent.mkdir(exist_ok=True)
    descriptor = os.open(said, os.O_WRONLY | os.O_CREAT)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    sys.argv = ["pretrain", "rotation", "0"]
    run(pretrain.main, str, int)


def _run(folder: Path, target: str) -> None:
    command = [sys.executable, "-m", "pipelines.runner", target, "--jobs", "1"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)


def processes_in(folder: Path, *, ids: bool = False) -> list[str]:
    """Command lines, or numbers, of all processes at work in a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and Path(process.cwd()).is_relative_to(folder):
                found.append(str(process.pid) if ids else " ".join(process.cmdline()))
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found
