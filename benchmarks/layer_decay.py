"""Fine-tuning with layer-wise rates, on held-out training images: `python -m benchmarks.layer_decay`.

The shipped emoji at 32 pixels, their test images left out altogether; a tenth of the labels of the rest, tested on a
sixth of it that neither pretraining nor fine-tuning sees. What has been measured with the same settings, code,
images and encoder is not measured again. `--table docs/benchmarks.md` writes the table.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks import methods_runs
from benchmarks.kept import code_of
from benchmarks.tables import show
from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.evaluation.finetune import finetune
from sslflow.networks.encoder import Encoder
from sslflow.networks.saved import load_encoder
from sslflow.networks.starts import Start
from sslflow.networks.weights import given
from sslflow.runtime.files import read_json, sha256, write_json
from sslflow.settings.params import load, lookup

DATA = "emoji-held-out"
IMAGES = 20_000
"""Images that SimCLR sees."""
LITE0 = Start(weights="package:efficientnet-lite0", side=64)
DECAYS = (1.0, 0.75, 0.65)
ROWS = {"lite0": "package:efficientnet-lite0, at 64 pixels", "simclr": "simclr, resnet10"}


def accuracy(row: str, decay: float, seed: int) -> float:
    """Of the held-out images right, after fine-tuning on a tenth of the labels."""
    job = methods_runs.Job(DATA, "resnet", "simclr", seed, IMAGES)
    methods_runs.make_folder(job)
    file = job.folder / "layer_decay" / f"{row}-{decay:g}-{seed}.json"
    settings = {**lookup(load(methods_runs.ROOT / "recipes/full.yaml"), "finetune"), "fractions": (0.1,), "each": ()}
    if row == "simclr" and not (methods_runs.measured(job) and (job.folder / paths.encoder(row, seed)).exists()):
        methods_runs.run(job)
    made = key(job.folder, row, seed, settings)
    if file.exists() and (found := read_json(file))["key"] == made:
        return found["accuracy"]
    dataset = Dataset[Any](job.folder / paths.PREPARED)

    def encoder() -> Encoder:
        return given(LITE0, dataset.format) if row == "lite0" else load_encoder(job.folder / paths.encoder(row, seed))

    torch.set_num_threads(1)
    asked = {**settings, "layer_decay": decay}
    (tuned,) = finetune(encoder, dataset, torch.device("cpu"), seed, **asked)
    write_json(file, {"key": made, "accuracy": tuned.accuracy})
    print(f"{row} {decay:g} seed {seed}: {100 * tuned.accuracy:.1f} %", flush=True)
    return tuned.accuracy


def key(folder: Path, row: str, seed: int, settings: Mapping[str, Any]) -> str:
    """Changes with the settings, the code, the images and the encoder that is fine-tuned."""
    encoder = str(LITE0) if row == "lite0" else sha256(folder / paths.encoder(row, seed))
    images = sha256(folder / paths.PREPARED / "manifest.parquet")
    return json.dumps([settings, code_of(["finetune"]), encoder, images], sort_keys=True)


def table(rows: list[str], seeds: list[int]) -> Iterator[str]:
    """The table in Markdown."""
    found = {(row, decay): [accuracy(row, decay, seed) for seed in seeds] for row in rows for decay in DECAYS}
    yield f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}; {len(seeds)} seeds, accuracy in %."
    yield ""
    yield f"| layer_decay | {' | '.join(f'{decay:g}' for decay in DECAYS)} |"
    yield "|---" * (len(DECAYS) + 1) + "|"
    for row in rows:
        cells = []
        for decay in DECAYS:
            values = [100 * one for one in found[row, decay]]
            spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
            cells.append(f"{statistics.fmean(values):.1f}{spread}")
        yield f"| {ROWS[row]} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--table", type=Path, help="write the table to this file, between its marks")
    asked = parser.parse_args()
    for seed in asked.seeds:
        for row in asked.rows:
            for decay in DECAYS:
                accuracy(row, decay, seed)
    show(table(asked.rows, asked.seeds), asked.table, "layer decay")


if __name__ == "__main__":
    main()
