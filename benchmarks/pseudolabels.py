"""What pseudo-labels above a confidence change, on and off: `python -m benchmarks.pseudolabels`.

SimCLR's encoders fine-tuned on few labels, without and with the images that its clusters label; DeepCluster from all
images and without those that are unsure of their cluster. Each is the pipeline's own, in folders under work/benchmarks,
with recipes/full.yaml but for `IMAGES_SEEN`. What was measured is not measured again. `--table docs/pseudo-labels.md`
writes the table. Thresholds were set by confidences and training labels of the demo: test images are looked at once,
here.
"""

from __future__ import annotations

import argparse
import contextlib
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

from benchmarks.methods import SEEDS, SETS, TEACHER, Job, make_folder
from benchmarks.tables import replace_table
from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.data.splits import TEST
from sslflow.evaluation.clustered import pseudolabels
from sslflow.evaluation.finetune import finetune
from sslflow.evaluation.intervals import crossed
from sslflow.networks.encoder import load_encoder
from sslflow.networks.starts import Start, write_start
from sslflow.runtime.files import read_csv, read_json, write_json
from sslflow.settings.params import load
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
        if not paths.metrics("probe", paths.run_name(method, seed)).exists():
            for stage in (pretrain, extract, pseudolabel, probe):
                stage.main(method, seed)
    return here


def tuned(data: str, seed: int, above: float) -> list[dict[str, Any]]:
    """Of each fraction of the labels: right answers, labels and pseudo-labels."""
    file = (WORK / data / f"tuned-{above:g}-{seed}.json").resolve()
    if not file.exists():
        with contextlib.chdir(trained(data, "simclr", seed)):
            dataset, settings = Dataset(), load()["finetune"]
            pseudo = pseudolabels("simclr", seed, len(dataset))
            actual = dataset.labels[dataset.labelled_rows(TEST)]
            asked = {**settings, "fractions": FRACTIONS, "pseudolabels_above": above}
            began, found = time.monotonic(), []
            for one in finetune(
                lambda: load_encoder(paths.encoder("simclr", seed)), dataset, CPU, seed, False, pseudo, **asked
            ):
                right = (np.array(one.predicted) == actual).astype(int).tolist()
                found.append({"labels": one.labels, "pseudolabels": one.pseudolabels, "right": right})
            write_json(file, {"found": found, "seconds": time.monotonic() - began})
    return read_json(file)["found"]


def probed(data: str, seed: int, confidence: float) -> np.ndarray:
    """Right answers of the linear probe on DeepCluster's features."""
    with contextlib.chdir(trained(data, "deepcluster", seed, confidence)):
        answers = read_csv(paths.predictions("deepcluster", seed))
    return np.array([one["actual"] == one["predicted"] for one in answers], float)


def table(sets: list[str], seeds: list[int]) -> Iterator[str]:
    """Accuracy on test images, and points above the same without, with the 95 % interval over seeds and images."""
    machine = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
    yield f"{machine}; {len(seeds)} seeds, {IMAGES_SEEN:,} images seen in pretraining."
    yield from ("", "| set | | labels | pseudo-labels | accuracy | above the same without |", "|---" * 6 + "|")
    for data in sets:
        rows: dict[tuple[str, str, str], np.ndarray] = {}
        base: dict[tuple[str, str, str], np.ndarray] = {}
        for above in ABOVE:
            found = [tuned(data, seed, above) for seed in seeds]
            for place in range(len(FRACTIONS)):
                own = [one[place] for one in found]
                right = np.array([one["right"] for one in own], float)
                key = (
                    f"fine-tuned, above {above:g}",
                    str(own[0]["labels"]),
                    f"{np.mean([o['pseudolabels'] for o in own]):,.0f}",
                )
                rows[key if above < 1 else ("fine-tuned, without", key[1], "0")] = right
                if above == 1:
                    base[key[1],] = right  # pyright: ignore
        for confidence in LEFT_OUT:
            right = np.stack([probed(data, seed, confidence) for seed in seeds])
            name = f"DeepCluster, {f'confidence {confidence:g}' if confidence else 'all images'}"
            rows[name, "all, linear", ""] = right
            base.setdefault(("all, linear",), right)  # pyright: ignore
        dataset = Dataset(WORK / data / "simclr-0" / "data/prepared")
        groups = dataset.groups[dataset.labelled_rows(TEST)]
        for (name, labels, pseudo), right in rows.items():
            spread = f" ± {100 * right.mean(axis=1).std(ddof=1):.1f}" if len(right) > 1 else ""
            told = crossed(right - base[labels,], groups)  # pyright: ignore
            gap = f"{100 * told.mean:+.1f} ({100 * told.low:+.1f} to {100 * told.high:+.1f})"
            cells = [data, name, labels, pseudo, f"{100 * right.mean():.1f}{spread}"]
            yield f"| {' | '.join(cells)} | {'' if right is base[labels,] else gap} |"  # pyright: ignore


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=["emoji", "fashion"], choices=SETS)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--table", type=Path, help="write the table to this file, between its marks")
    asked = parser.parse_args()
    lines = "\n".join(table(asked.sets, asked.seeds))
    print(lines)
    if asked.table:
        replace_table(asked.table, "pseudo-labels", lines)


if __name__ == "__main__":
    main()
