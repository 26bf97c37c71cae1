"""How the numbers were made: settings, versions, commit, durations, and what is known of the data."""

from __future__ import annotations

import io
import platform
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.data.splits import POOL, TRAIN
from sslflow.runtime.files import read_csv, read_json

PACKAGES = ("sslflow", "torch", "timm", "kornia", "numpy", "scikit-learn", "dvc")
EXAMPLES = 12


def weights(names: Iterable[str]) -> list[str]:
    """What is known of weights that exist, by their names in `starts`: `lite0: package:…, Apache-2.0, sha256 5793…`."""
    found = []
    for name in names:
        facts = read_json(file) if (file := paths.start(name)).exists() else {}
        hashed = f"sha256 {facts['sha256'][:12]}…" if facts.get("sha256") else ""
        side = f"images brought to {facts['side']} pixels" if facts.get("side") else ""
        words = [facts.get("weights"), facts.get("network"), facts.get("licence"), hashed, side]
        if facts:
            found.append(f"{name}: {', '.join(filter(None, words))}")
    return found


def versions() -> dict[str, str]:
    """Python and the packages on which the numbers depend, by name; one that is not installed is left out."""
    found = {"Python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The commit of the project's folder, marked where code or data differ from it; '' outside git."""
    if shutil.which("git") is None:
        return ""
    head = _git("rev-parse", "--short=12", "HEAD")
    # Settings stand in the card, and what stages write changes with every run, before anyone can commit it.
    rest = (":!dvc.lock", f":!{paths.ARTIFACTS}", ":!params.yaml")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", *rest)
    return f"{head} with changes" if head and changed else head


def settings(params: dict[str, Any], sections: Iterable[str], methods: Sequence[str]) -> dict[str, Any]:
    """The sections named, of the methods only those that are run."""
    chosen = {name: params[name] for name in sections if params.get(name)}
    if "methods" in chosen:
        chosen["methods"] = {name: chosen["methods"][name] for name in methods if name in chosen["methods"]}
    return chosen


def settings_text(chosen: dict[str, Any]) -> str:
    """Settings as YAML."""
    text = io.StringIO()
    yaml = YAML(typ="safe")
    yaml.default_flow_style = False
    yaml.dump(chosen, text)
    return text.getvalue()


def durations(methods: Sequence[str], seeds: Sequence[int]) -> list[tuple[str, str, float]]:
    """Stage, run and seconds of all that wrote down how long it took."""
    found = []
    prepare = paths.metrics("prepare")
    if prepare.exists() and "seconds" in read_json(prepare):
        found.append(("prepare", "", read_json(prepare)["seconds"]))
    for stage in ("pretrain", "finetune"):
        for method in methods:
            for seed in seeds:
                run = paths.run_name(method, seed)
                file = paths.metrics(stage, run)
                metrics = read_json(file) if file.exists() else {}
                if "seconds" in metrics:
                    found.append((stage, run, metrics["seconds"]))
    return found


def quarantined(folder: Path = paths.PREPARED) -> tuple[list[tuple[str, int]], list[dict[str, str]]]:
    """Reasons for which files were put aside, with counts, most frequent first; and the first few of the files."""
    file = folder / "quarantine.csv"
    if not file.exists():
        return [], []
    rows = read_csv(file, ["path", "reason"])
    reasons = Counter(row.get("reason", "").split(":")[0] for row in rows)
    return reasons.most_common(), rows[:EXAMPLES]


def count(dataset: Dataset) -> int:
    """Images that are there, each once: those with a label may be prepared to pretrain on, and once more to probe
    with."""
    pool, train = (dataset.rows(split) for split in (POOL, TRAIN))
    if not len(pool) or not len(train):
        return len(dataset)
    known = set(dataset.column("sha256", pool))
    return len(dataset) - sum(bool(one) and one in known for one in dataset.column("sha256", train))


def splits(dataset: Dataset) -> list[tuple[str, int, int]]:
    """Name, images and labelled images of each split that is there."""
    return [
        (name, len(rows), len(dataset.labelled_rows(name)))
        for name in ("pool", "train", "test")
        if len(rows := dataset.rows(name))
    ]


def _git(*words: str) -> str:
    result = subprocess.run(["git", *words], capture_output=True, text=True, check=False, timeout=20)
    return result.stdout.strip() if result.returncode == 0 else ""
