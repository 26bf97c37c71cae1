"""Whether it matters for accuracy who makes the views: `python -m benchmarks.views_accuracy --out FOLDER`.

SimCLR on the shipped emoji at 32 pixels by the settings of recipes/demo.yaml, but 6 epochs, with views by Kornia's own
layers and with ours; accuracies of frozen features on the test images, by kNN and by the linear probe, for each seed,
and the mean difference from Kornia's with the 95 % interval over seeds (Student's t of the differences, seed by seed:
a seed is the weights at the start and the order of the images). The row `yiq` is ours with hue as a rotation in YIQ.

Every run is a file in FOLDER/runs as soon as it is done, and is not repeated: so what is stopped goes on, and several
processes may share the seeds (`--part 0 4`, `--part 1 4` …); the table is of all that is there. The images are prepared
in FOLDER once; `--seeds 0` does nothing else, for a machine that lacks what reads picture files.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from benchmarks.tables import show
from benchmarks.views import Kornias, machine
from sslflow.audiovisual.colours import TO_YIQ
from sslflow.data.dataset import Dataset
from sslflow.data.splits import TEST, TRAIN
from sslflow.evaluation.knn import knn_predict
from sslflow.evaluation.linear import fit_linear
from sslflow.features.extract import calibrate, extract
from sslflow.methods.images.simclr import SimCLR
from sslflow.networks.encoder import Encoder
from sslflow.runtime.device import compute
from sslflow.runtime.files import write_json
from sslflow.runtime.rng import derive
from sslflow.settings.params import Over, read
from sslflow.training.fit import fit
from sslflow.views.colouring import Colouring
from sslflow.views.images import TwoViews, Views

RECIPE = Path(__file__).resolve().parent.parent / "recipes/demo.yaml"
EPOCHS = 6
KINDS = ("linear", "kNN")


class InYIQ(TwoViews):
    """Our views, but hue turns the plane of colours of YIQ."""

    def __init__(self, *given: Any, **settings: Any) -> None:
        super().__init__(*given, **settings)
        self.colouring.changes = (*Colouring.changes[:3], turned_in_yiq)


def turned_in_yiq(images: Tensor, amounts: Tensor) -> Tensor:
    """As `colouring.turned`: what is brighter or darker to the eye stays so."""
    to_yiq = TO_YIQ.to(images)
    angles = -2 * math.pi * amounts
    turn = torch.eye(3, device=images.device).repeat(len(images), 1, 1)
    turn[:, 1, 1] = turn[:, 2, 2] = angles.cos()
    turn[:, 2, 1] = angles.sin()
    turn[:, 1, 2] = -turn[:, 2, 1]
    matrices = to_yiq.inverse() @ turn @ to_yiq
    return (matrices @ images.flatten(2)).view_as(images).clamp_(0, 1)


ROWS: dict[str, type[Views]] = {"kornia": Kornias, "ours": TwoViews, "yiq": InYIQ}


def emoji(folder: Path) -> Dataset:
    """The shipped emoji, prepared in the folder where they aren't yet."""
    ready = folder.with_name("ready")
    if not ready.exists():
        # What reads picture files need not be installed where they have been brought along prepared.
        from sslflow.ingest.images.prepare import prepare

        workers = os.cpu_count() or 1
        prepare(folder, lambda line: None, source="samples:emoji", image_size=32, channels=3, workers=workers)
        ready.touch()
    return Dataset(folder)


def trained(kind: type[Views], dataset: Dataset, device: torch.device, seed: int, epochs: int) -> dict[str, float]:
    """Accuracies of one run in %, and its seconds."""
    block = "methods.simclr"
    schemas = {block: SimCLR, f"{block}.views": Over("views", TwoViews), f"{block}.train": Over("train", fit)}
    probes = {"probe.knn": knn_predict, "probe.linear": fit_linear}
    settings = read({"encoder": Encoder, **schemas, **probes}, RECIPE)
    form = dataset.format
    torch.manual_seed(derive(seed, "init"))
    method = SimCLR(Encoder(form.channels, form.size, **settings["encoder"]), **settings[block])
    how = settings[f"{block}.train"] | {"epochs": epochs, "resident": device.type == "cuda"}
    started = time.perf_counter()
    for _ in fit(method, kind(form, **settings[f"{block}.views"]), dataset, device, seed, **how):
        pass
    calibrate(method.encoder, dataset, dataset.pretraining_rows, device)
    took = time.perf_counter() - started
    train, test = (dataset.labelled_rows(split) for split in (TRAIN, TEST))
    known, asked = (
        torch.from_numpy(extract(method.encoder, dataset, rows, device)).to(device) for rows in (train, test)
    )
    labels, right = (torch.from_numpy(dataset.labels[rows]).to(device) for rows in (train, test))
    classes = len(dataset.classes)
    probe = fit_linear(known, labels, classes, derive(seed, "probe"), **settings["probe.linear"])
    said = probe.predict(asked), knn_predict(known, labels, asked, classes, **settings["probe.knn"])
    found = {name: 100 * float((one == right).float().mean()) for name, one in zip(KINDS, said, strict=True)}
    return {**found, "training, s": took, "all, s": time.perf_counter() - started}


def table(runs: Mapping[str, Mapping[int, Mapping[str, float]]]) -> Iterator[str]:
    """Lines: each seed's accuracies, means, and differences from Kornia's, of `runs[row][seed]`."""
    rows = [row for row in ROWS if runs.get(row)]
    seeds = sorted({seed for row in rows for seed in runs[row]})
    yield f"| seed | {' | '.join(f'{row}, {kind}' for row in rows for kind in KINDS)} |"
    yield "|---|" + "---|" * (len(rows) * len(KINDS))
    for seed in seeds:
        cells = [runs[row].get(seed, {}).get(kind, math.nan) for row in rows for kind in KINDS]
        yield f"| {seed} | {' | '.join('' if math.isnan(cell) else f'{cell:.1f}' for cell in cells)} |"
    means = [np.mean([run[kind] for run in runs[row].values()]) for row in rows for kind in KINDS]
    yield f"| mean | {' | '.join(f'{mean:.2f}' for mean in means)} |"
    yield ""
    for row in rows:
        for kind in KINDS if row != "kornia" else ():
            both = sorted(set(runs[row]) & set(runs.get("kornia", {})))
            yield f"{row} - kornia, {kind}: {difference([runs[row][s][kind] - runs['kornia'][s][kind] for s in both])}"
    seconds = [run["all, s"] for row in rows for run in runs[row].values()]
    yield f"{len(seconds)} runs, {np.median(seconds):.1f} s each (median)"


def kept(folder: Path, what: Mapping[str, Any]) -> dict[str, dict[int, dict[str, float]]]:
    """The runs there are: what was found, by row and seed. Ends the program where one is of something else."""
    runs: dict[str, dict[int, dict[str, float]]] = {}
    for file in sorted(folder.glob("*.json")):
        run = json.loads(file.read_text(encoding="utf-8"))
        other = {name: run[name] for name in what}
        if other != what:
            raise SystemExit(f"{file} is of {other}, not of {what}: take another --out")
        runs.setdefault(run["row"], {})[run["seed"]] = run["found"]
    return runs


def difference(found: list[float]) -> str:
    """The mean of differences, and its interval where there are two or more."""
    if len(found) < 2:
        return f"no interval: {len(found)} seeds in both, two or more are needed"
    half = stats.t.ppf(0.975, len(found) - 1) * np.std(found, ddof=1) / math.sqrt(len(found))
    mean = float(np.mean(found))
    return f"{mean:+.2f} points, 95 % interval {mean - half:+.2f} to {mean + half:+.2f}, {len(found)} seeds"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs and the images")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=["kornia", "ours"])
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--part", nargs=2, type=int, default=(0, 1), metavar=("WHICH", "OF"), help="of the seeds")
    parser.add_argument("--seconds", type=float, default=math.inf, help="after so many no further run is begun")
    parser.add_argument("--table", type=Path, help="the guide that the table goes into")
    asked = parser.parse_args()
    if asked.seeds < 0 or asked.epochs < 1:
        raise SystemExit("--seeds is a number of at least 0, --epochs of at least 1")
    if not 0 <= asked.part[0] < asked.part[1]:
        raise SystemExit("--part is WHICH, from 0, of OF parts, such as 0 4")
    torch.set_num_threads(1)
    begun = time.monotonic()
    try:
        device = compute(device=asked.device)
    except ValueError as error:
        raise SystemExit(str(error)) from None
    dataset, (which, of) = emoji(asked.out / "prepared"), asked.part
    what = {"machine": machine(device), "epochs": asked.epochs}
    for seed in range(which, asked.seeds, of):
        for row in asked.rows:
            file = asked.out / "runs" / f"{row}-{seed}.json"
            if file.exists() or time.monotonic() - begun > asked.seconds:
                continue
            found = trained(ROWS[row], dataset, device, seed, asked.epochs)
            write_json(file, {**what, "row": row, "seed": seed, "found": found})
            told = ", ".join(f"{name} {value:.1f}" for name, value in found.items())
            print(f"{row}, seed {seed}: {told}", flush=True)
    runs = kept(asked.out / "runs", what)
    if not runs:
        return
    title = f"`python -m benchmarks.views_accuracy`, {asked.epochs} epochs; {what['machine']}:"
    lines = [title, "", *table(runs)]
    show(lines, asked.table, "views-accuracy")


if __name__ == "__main__":
    main()
