"""What pseudo-labels above a confidence change, on and off: `python -m benchmarks.pseudolabels`.

SimCLR's encoders fine-tuned on few labels, without and with the images that its clusters label; DeepCluster from all
images and without those that are unsure of their cluster. Each is the pipeline's own, in folders under work/benchmarks,
with recipes/full.yaml but for `IMAGES_SEEN`. What was measured with the same settings and images is not measured again;
what other code than today's has made is marked in the table, which `--table docs/pseudo-labels.md` writes.
Thresholds were set by confidences and training labels of the demo: test images are looked at once, here.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ruamel.yaml import YAML

from benchmarks.kept import code_of, commit, note, other_code
from benchmarks.methods_runs import SEEDS, SETS, TEACHER, Job, make_folder
from benchmarks.tables import show
from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.data.splits import TEST
from sslflow.evaluation.clustered import pseudolabels
from sslflow.evaluation.finetune import finetune
from sslflow.evaluation.intervals import crossed
from sslflow.networks.saved import load_encoder
from sslflow.networks.starts import Start, write_start
from sslflow.runtime.files import read_csv, read_json, sha256, write_json
from sslflow.settings.params import load, lookup
from sslflow.stages import extract, pretrain, probe, pseudolabel

WORK = Path("work/benchmarks/pseudolabels")
IMAGES_SEEN = 20_000
FRACTIONS = (0.1, 0.01)
ABOVE = (1.0, 0.3, 0.5)
"""Of fine-tuning; 1: off."""
LEFT_OUT = (0.0, 0.2)
"""Of DeepCluster; 0: off."""
CPU = torch.device("cpu")


def trained(data: str, method: str, seed: int, confidence: float = 0.0) -> Path:
    """The folder in which an encoder was trained, its features clustered and probed."""
    job = replace(Job(data, "resnet", method, seed), images=IMAGES_SEEN)
    make_folder(job)
    here = WORK / data / f"{method}-{confidence:g}"
    here.mkdir(parents=True, exist_ok=True)
    (here / "data").mkdir(exist_ok=True)
    if not (here / "data/prepared").exists():
        (here / "data/prepared").symlink_to((job.folder / "data/prepared").resolve(), target_is_directory=True)
    params = load(job.folder / "params.yaml")
    params["methods"]["deepcluster"]["confidence"] = confidence
    with (here / "params.yaml").open("w") as handle:
        YAML(typ="safe").dump(params, handle)
    with contextlib.chdir(here):
        write_start("teacher", Start(**TEACHER))
        blocks = {name: lookup(params, name) for name in ("compute", "encoder", "extract", "pseudolabel", "probe")}
        block = f"methods.{method}"
        shared = [lookup(params, f"{block}.{part}", over=part) for part in ("train", "views")]
        made = key([blocks, lookup(params, block), shared, sha256(paths.PREPARED / "manifest.parquet")])
        if kept(record := record_of(method, seed), made) is None:
            for stage in (pretrain, extract, pseudolabel, probe):
                stage.main(method, seed)
            write_json(record, {"key": made, "commit": commit(), "code": code(method)})
    return here


def record_of(method: str, seed: int) -> Path:
    """Of what a run was made, in its folder."""
    return Path("made") / f"{method}-{seed}.json"


def code(method: str, *stages: str) -> dict[str, str]:
    """The code that a run, and what `stages` make of it, reaches today."""
    return code_of(("pretrain", "extract", "pseudolabel", "probe", *stages), f"sslflow.methods.images.{method}")


def key(content: Any) -> str:
    """Changes with whatever the content holds."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


def kept(file: Path, made: str) -> dict[str, Any] | None:
    """What a file holds, where it was made with this key."""
    found = read_json(file) if file.exists() else {}
    return found if found.get("key") == made else None


def tuned(data: str, seed: int, above: float) -> tuple[list[dict[str, Any]], str]:
    """Of each fraction of the labels: right answers, labels and pseudo-labels; and by what other code than today's."""
    file = (WORK / data / f"tuned-{above:g}-{seed}.json").resolve()
    with contextlib.chdir(trained(data, "simclr", seed)):
        settings, record = load()["finetune"], read_json(record_of("simclr", seed))
        files = [sha256(place("simclr", seed)) for place in (paths.encoder, paths.clustering)]
        made = key([settings, FRACTIONS, record["key"], files])
        if (found := kept(file, made)) is None:
            dataset = Dataset()
            pseudo = pseudolabels("simclr", seed, len(dataset))
            actual = dataset.labels[dataset.labelled_rows(TEST)]
            asked = {**settings, "fractions": FRACTIONS, "pseudolabels_above": above}
            began, answers = time.monotonic(), []
            for one in finetune(
                lambda: load_encoder(paths.encoder("simclr", seed)), dataset, CPU, seed, False, pseudo, **asked
            ):
                right = (np.array(one.predicted) == actual).astype(int).tolist()
                answers.append({"labels": one.labels, "pseudolabels": one.pseudolabels, "right": right})
            found = {"key": made, "commit": commit(), "code": {**code("simclr", "finetune"), **record["code"]}}
            found |= {"found": answers, "seconds": time.monotonic() - began}
            write_json(file, found)
    return found["found"], other_code(found, code("simclr", "finetune"))


def probed(data: str, seed: int, confidence: float) -> tuple[np.ndarray, str]:
    """Right answers of the linear probe on DeepCluster's features, and by what other code than today's."""
    with contextlib.chdir(trained(data, "deepcluster", seed, confidence)):
        answers, record = read_csv(paths.predictions("deepcluster", seed)), read_json(record_of("deepcluster", seed))
    right = np.array([one["actual"] == one["predicted"] for one in answers], float)
    return right, other_code(record, code("deepcluster"))


def table(sets: list[str], seeds: list[int]) -> Iterator[str]:
    """Accuracy on test images, and points above the same without, with the 95 % interval over seeds and images."""
    machine = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
    yield f"{machine}; {len(seeds)} seeds, {IMAGES_SEEN:,} images seen in pretraining."
    yield from ("", "| set | | labels | pseudo-labels | accuracy | above the same without |", "|---" * 6 + "|")
    others: dict[str, list[str]] = {}
    for data in sets:
        rows: dict[tuple[str, str, str], np.ndarray] = {}
        base: dict[tuple[str, str, str], np.ndarray] = {}
        for above in ABOVE:
            found, other = zip(*(tuned(data, seed, above) for seed in seeds), strict=True)
            title = f"fine-tuned, above {above:g}" if above < 1 else "fine-tuned, without"
            others[f"{data}, {title}"] = list(other)
            for place in range(len(FRACTIONS)):
                own = [one[place] for one in found]
                right = np.array([one["right"] for one in own], float)
                labels, pseudo = str(own[0]["labels"]), f"{np.mean([one['pseudolabels'] for one in own]):,.0f}"
                rows[title, labels, pseudo if above < 1 else "0"] = right
                if above == 1:
                    base[labels,] = right  # pyright: ignore
        for confidence in LEFT_OUT:
            found, other = zip(*(probed(data, seed, confidence) for seed in seeds), strict=True)
            right = np.stack(found)
            name = f"DeepCluster, {f'confidence {confidence:g}' if confidence else 'all images'}"
            others[f"{data}, {name}"] = list(other)
            rows[name, "all, linear", ""] = right
            base.setdefault(("all, linear",), right)  # pyright: ignore
        dataset = Dataset(WORK / data / "simclr-0" / "data/prepared")
        groups = dataset.groups[dataset.labelled_rows(TEST)]
        for (name, labels, pseudo), right in rows.items():
            spread = f" ± {100 * right.mean(axis=1).std(ddof=1):.1f}" if len(right) > 1 else ""
            told = crossed(right - base[labels,], groups)  # pyright: ignore
            gap = f"{100 * told.mean:+.1f} ({100 * told.low:+.1f} to {100 * told.high:+.1f})"
            mark = " ‡" if any(others[f"{data}, {name}"]) else ""
            cells = [data, f"{name}{mark}", labels, pseudo, f"{100 * right.mean():.1f}{spread}"]
            yield f"| {' | '.join(cells)} | {'' if right is base[labels,] else gap} |"  # pyright: ignore
    yield from note(others)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=["emoji", "fashion"], choices=SETS)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--table", type=Path, help="write the table to this file, between its marks")
    asked = parser.parse_args()
    show(table(asked.sets, asked.seeds), asked.table, "pseudo-labels")


if __name__ == "__main__":
    main()
