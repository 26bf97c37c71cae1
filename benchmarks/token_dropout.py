"""What leaving out patches saves, and what it costs: `python -m benchmarks.token_dropout --table docs/benchmarks.md`.

SimCLR with a small ViT on the fashion sample, one thread, one seed: the same epochs with shares of the patches left out
in training, and as many more as take the time of the first. Test images are looked at once. Besides a step of SimCLR
and of DINO, whose teacher leaves out as many, in turns, in seconds of the processor. What has been measured by the same
code is not measured again.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.families import CPU, FAMILIES, VIT, Family, Made, assemble, prepare
from benchmarks.kept import ROOT, code_of, commit, hash_of, note, other_code
from benchmarks.tables import show
from sslflow.evaluation.knn import knn_predict
from sslflow.evaluation.linear import fit_linear
from sslflow.features.extract import extract
from sslflow.runtime.device import compute
from sslflow.runtime.files import read_json, write_json
from sslflow.runtime.rng import derive
from sslflow.training.fit import fit

WORK = Path("work/benchmarks/token_dropout")
RUNS = ((0.0, 0), (0.0, 1), (0.5, 1), (0.5, 2), (0.75, 1), (0.75, 3))
"""Shares and epochs; none: random weights."""
BATCH, ROUNDS = 64, 9
IMAGES, LABELLED = 6000, 3000
"""That are trained on in an epoch, and those of whose labels a classifier learns."""


def family(method: str) -> Family:
    """With a ViT."""
    return replace(next(one for one in FAMILIES if one.method == method), encoder=VIT)


def started(method: str) -> tuple[Made, dict[str, Any]]:
    """A method with its first weights, and how it is trained."""
    made = assemble(family(method))
    return made, {**made.train, "batch_size": BATCH, "lr": 1e-3}


def run(share: float, epochs: int) -> dict[str, float]:
    """Seconds of training, and accuracies of frozen features on the test images."""
    made, train = started("simclr")
    began = time.process_time()
    options = {**train, "epochs": epochs, "token_dropout": share}
    for _ in fit(made.method, made.views, made.dataset, CPU, 0, rows=made.rows[:IMAGES], **options):
        pass
    seconds, dataset, encoder = time.process_time() - began, made.dataset, made.method.encoder.eval()
    x_train, x_test, y_train, y_test = (
        torch.from_numpy(take(dataset.labelled_rows(part)[:LABELLED]))
        for take in (lambda rows: extract(encoder, dataset, rows, CPU), lambda rows: dataset.labels[rows])
        for part in ("train", "test")
    )
    classes = len(dataset.classes)
    probe = fit_linear(x_train, y_train, classes, derive(0, "probe"), tolerance=3e-4)
    return {
        "seconds": seconds,
        "linear": float((probe.predict(x_test) == y_test).float().mean()),
        "knn": float((knn_predict(x_train, y_train, x_test, classes) == y_test).float().mean()),
    }


def ratios(method: str) -> dict[str, float]:
    """How long a step takes with each share, beside one without."""
    shares = sorted({share for share, _ in RUNS})
    steps: dict[float, Iterator[Any]] = {}
    for share in shares:
        made, train = started(method)
        options = {**train, "epochs": 1000, "token_dropout": share}
        steps[share] = fit(made.method, made.views, made.dataset, CPU, 0, **options)
    rounds: list[dict[float, float]] = []
    for number in range(ROUNDS + 1):
        taken: dict[float, float] = {}
        for share in shares:
            began = time.process_time()
            next(steps[share])
            taken[share] = time.process_time() - began
        if number:
            rounds.append(taken)
    return {str(share): statistics.median(one[share] / one[0.0] for one in rounds) for share in shares}


def code() -> dict[str, str]:
    """What all of it comes from."""
    own = {name: hash_of(ROOT / f"benchmarks/{name}.py") for name in ("families", "token_dropout")}
    return code_of(["pretrain", "probe"], "sslflow.methods.images.simclr", "sslflow.methods.images.dino") | own


def kept(name: str, measure: Any) -> dict[str, Any]:
    """A result, measured unless it was by the same code."""
    file, now = WORK / f"{name}.json", code()
    if not file.exists() or read_json(file)["code"] != now:
        found = measure()
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, {**found, "commit": commit(), "code": now})
        print(name, {key: round(value, 3) for key, value in found.items()}, flush=True)
    return read_json(file)


def table(steps: dict[str, Any], runs: dict[tuple[float, int], Any]) -> Iterator[str]:
    """It in Markdown."""
    yield (
        f"{platform.machine()}, one thread, Python {platform.python_version()}, torch {torch.__version__}; "
        f"{datetime.date.today()}. SimCLR on fashion, ViT of width 64, 4 blocks, 49 patches; {IMAGES:,} images in "
        f"batches of {BATCH}, {LABELLED:,} labels; one seed."
    )
    yield ""
    yield "| left out | a step of simclr | of dino | epochs | seconds of the processor | linear | kNN |"
    yield "|---|---|---|---|---|---|---|"
    for (share, epochs), found in runs.items():
        accuracies = f"{100 * found['linear']:.1f} | {100 * found['knn']:.1f}"
        ratio = " | ".join(f"{of[str(share)]:.2f} ×" for of in steps.values())
        yield f"| {share:g} | {ratio} | {epochs} | {found['seconds']:.0f} | {accuracies} |"
    others = [other_code(one, code()) for one in (*steps.values(), *runs.values())]
    yield from note({"rows": others} if any(others) else {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, help="write the table to this file, between its marks")
    asked = parser.parse_args()
    compute(device="cpu", threads=1)
    prepare(family("simclr"))
    steps = {method: kept(f"steps-{method}", lambda method=method: ratios(method)) for method in ("simclr", "dino")}
    runs = {one: kept(f"run-{one[0]}-{one[1]}", lambda one=one: run(*one)) for one in RUNS}
    show(table(steps, runs), asked.table, "token-dropout")


if __name__ == "__main__":
    main()
