"""Every method on the same encoder, data and number of images, beside its controls: `python -m benchmarks.methods`.

Each run is the pipeline's own: the stages pretrain, extract and probe in a folder of their own under work/benchmarks.
What has been measured with the same settings and the same file of its method is not measured again (`--fresh` does);
a run that was stopped resumes. `--table docs/benchmarks.md` writes the table. `--images` shows more images, or fewer.
`--held-out` tries the settings that were once compared on test images again, on a part of the training images that
neither pretraining nor the probes see; the test images are left out altogether.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import statistics
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.kept import note, other_code
from benchmarks.methods_runs import (
    ENCODERS,
    HELD_OUT,
    IMAGES_SEEN,
    SEEDS,
    SETS,
    TRIED,
    VARIANTS,
    WORK,
    Job,
    code,
    jobs,
    make_folder,
    measured,
    run,
    sick,
)
from benchmarks.tables import show
from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.evaluation.intervals import crossed
from sslflow.runtime.files import read_csv
from sslflow.training.method import names

CONTROLS = ("random", "pixels", "supervised")
TRIED_ON_TEST = {"fashion": ("rotation", "simclr", "barlow_twins")}
"""Methods whose settings were once tried out on a set's test images: their rows flatter."""
FAMILIES = {
    "pretext": ("rotation", "context_prediction", "jigsaw", "colorization", "inpainting", "denoising", "autoencoder"),
    "contrastive": ("simclr", "simclr, decoupled", "diet", "moco_v2", "moco_v3", "densecl", "nnclr"),
    "non-contrastive": ("byol", "barlow_twins", "vicreg", "lejepa", "simsiam", "dino"),
    "masked": ("mae", "ibot", "dinov2", "ijepa"),
    "clustering": ("deepcluster", "swav"),
    "from a teacher": ("distillation",),
}
METHODS = [method for family in FAMILIES.values() for method in family]
CHOICES = sorted(["rotation", "simclr", "barlow_twins", *TRIED])


def table(sets: list[str], seeds: list[int], images: int) -> Iterator[str]:
    """The tables in Markdown, one for each data set."""
    now = datetime.datetime.now(datetime.UTC).date()
    tested = "held-out training" if set(sets) <= HELD_OUT.keys() else "test"
    yield (
        f"{platform.machine()}, {os.cpu_count()} cores, one thread a run, {_device()}, Python "
        f"{platform.python_version()}, torch {torch.__version__}; {now}. {images:,} images seen, up to "
        f"{len(seeds)} seeds: mean ± standard deviation, accuracy on the {tested} images in %."
    )
    for data in sets:
        for encoder in ENCODERS:
            rows = {
                method: found
                for method in (*(CHOICES if data in HELD_OUT else METHODS), *CONTROLS)
                if (found := list(_found(data, encoder, method, seeds, images)))
            }
            if rows:
                yield from ("", f"### {data}, {encoder}: {_words(ENCODERS[encoder])}", "")
                yield from _rows(data, rows, Dataset(WORK / "prepared" / data).groups)


def _found(data: str, encoder: str, method: str, seeds: list[int], images: int) -> Iterator[dict[str, Any]]:
    for seed in seeds:
        job = Job(data, encoder, method, seed, images)
        if (job.folder / "params.yaml").exists() and (done := measured(job)):
            answers = read_csv(job.folder / paths.predictions(job.method, job.seed))
            right = np.array([one["predicted"] == one["actual"] for one in answers], dtype=np.float64)
            rows = np.array([int(one["row"]) for one in answers])
            other = other_code(done, code(job))
            yield {**done, "findings": sick(job), "seed": seed, "right": right, "rows": rows, "other": other}


def _words(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" if name != "name" else str(value) for name, value in settings.items())


def _device() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"


def _rows(data: str, rows: dict[str, list[dict[str, Any]]], groups: np.ndarray) -> Iterator[str]:
    yield "| | seeds | linear | kNN | RankMe | CPU s | MiB | above random | above pixels | verdict |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    tried = [method for method in TRIED_ON_TEST.get(data, ()) if method in rows]
    for method, found in rows.items():
        name = f"*{method}*" if method in CONTROLS else method
        name += " †" if method in tried else ""
        name += " ‡" if any(one["other"] for one in found) else ""
        cells = [str(len(found)), _spread(found, "linear", 100), _spread(found, "knn", 100)]
        cells += [_spread(found, "rankme", 1), _mean(found, "seconds"), _mean(found, "memory")]
        for control in ("random", "pixels"):
            beaten = control in rows and method not in ("random", "pixels")
            cells.append(_gap(found, rows[control], groups) if beaten else "")
        kinds = sorted({kind for one in found for kind in one["findings"]})
        cells.append(", ".join(kinds) or ("healthy" if "seconds" in found[0] else ""))
        yield f"| {name} | {' | '.join(cells)} |"
    if tried:
        yield from ("", "† Its settings were once tried out on these test images: the row flatters.")
    yield from note({method: [one["other"] for one in found] for method, found in rows.items()})


def _spread(found: list[dict[str, Any]], metric: str, scale: float) -> str:
    values = [scale * one[metric] for one in found if metric in one]
    if not values:
        return ""
    return f"{statistics.fmean(values):.1f}" + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")


def _mean(found: list[dict[str, Any]], metric: str) -> str:
    values = [one[metric] for one in found if metric in one]
    return f"{statistics.fmean(values):.0f}" if values else ""


def _gap(found: list[dict[str, Any]], control: list[dict[str, Any]], groups: np.ndarray) -> str:
    """Points of linear accuracy between two rows, and the 95 % interval of that over seeds and test images, in pairs of
    the same seed and image."""
    theirs = {one["seed"]: one["right"] for one in control}
    ours = [one for one in found if one["seed"] in theirs]
    told = crossed(np.stack([one["right"] - theirs[one["seed"]] for one in ours]), groups[ours[0]["rows"]])
    return f"{100 * told.mean:+.1f} ({100 * told.low:+.1f} to {100 * told.high:+.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=["fashion", "emoji"], choices=SETS)
    parser.add_argument("--encoders", nargs="+", default=list(ENCODERS), choices=ENCODERS)
    parser.add_argument("--methods", nargs="+", default=[*CONTROLS, *METHODS])
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--images", type=int, default=IMAGES_SEEN, help="images seen in a run, over its epochs")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs side by side, one thread each")
    parser.add_argument("--held-out", action="store_true", help="settings tried on test images, tried again without")
    parser.add_argument("--fresh", action="store_true", help="measure again what has been measured")
    parser.add_argument("--changed", action="store_true", help="measure again what other code than today's has made")
    parser.add_argument("--table", type=Path, help="write the tables to this file, between its marks")
    asked = parser.parse_args()
    if asked.held_out:
        asked.sets, asked.encoders, asked.methods = ["fashion-held-out"], ["resnet"], ["random", "pixels", *CHOICES]
    methods = [name for name in asked.methods if name in (*CONTROLS, *VARIANTS, *names())]
    wanted = jobs(asked.sets, asked.encoders, methods, asked.seeds, asked.images)
    for job in {job.folder: job for job in wanted}.values():
        make_folder(job)
    missing = [
        job
        for job in wanted
        if asked.fresh or not (done := measured(job)) or (asked.changed and other_code(done, code(job)))
    ]
    print(f"{len(wanted)} runs, {len(missing)} to measure", flush=True)
    failed = 0
    with ThreadPoolExecutor(asked.jobs) as workers:
        for outcome in [workers.submit(run, job) for job in missing]:
            try:
                outcome.result()
            except RuntimeError as error:
                failed += 1
                print(error, flush=True)
    name = "methods" if asked.images == IMAGES_SEEN else f"methods, {asked.images} images"
    show(table(asked.sets, asked.seeds, asked.images), asked.table, "held out" if asked.held_out else name)
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
