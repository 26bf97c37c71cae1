"""finetune NAME SEED: an encoder fine-tuned on shares of the labels, or on a few of every class: that of a method's
run, with random weights (`scratch`), or with weights that `starts` names."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.data.formats import ImageFormat
from sslflow.data.splits import TEST
from sslflow.evaluation.clustered import pseudolabels
from sslflow.evaluation.efficiency import few_name
from sslflow.evaluation.finetune import FRACTIONS, finetune, metric_name
from sslflow.evaluation.labels import shares
from sslflow.networks.encoder import Encoder
from sslflow.networks.saved import ENCODERS
from sslflow.networks.starts import SCRATCH
from sslflow.networks.weights import encoder_of
from sslflow.runtime.device import compute
from sslflow.runtime.energy import Meter, watt_hours
from sslflow.runtime.files import write_csv, write_metrics
from sslflow.settings.params import read
from sslflow.settings.sections import data_kind
from sslflow.stages.entry import run

SUPERVISED = "supervised"
COLUMNS = ("row", "actual")
"""Of the table of predictions, before one for each share of the labels, and for each draw of a few of every class."""


def schemas(kind: str) -> Mapping[str, Callable[..., Any]]:
    """The sections of params.yaml that this stage reads, and what they configure."""
    return {"compute": compute, "encoder": ENCODERS[kind], "finetune": finetune}


def main(method: str, seed: int) -> None:
    settings = read(schemas(data_kind()))
    device = compute(**settings["compute"])
    dataset = Dataset[Any]()
    name = paths.run_name(method, seed)
    file = paths.metrics("finetune", name)
    answers = paths.tuned(method, seed)
    if not dataset.labelled:
        write_metrics(file, {})
        write_csv(answers, COLUMNS, ())
        print(f"finetune {name}  skipped: no labelled images to train on and to test on")
        return

    if dataset.format.kind != ImageFormat.kind:
        write_metrics(file, {})
        write_csv(answers, COLUMNS, ())
        print(f"finetune {name}  skipped: only encoders of images are fine-tuned; the probe says what they know")
        return

    if method == SUPERVISED:
        write_metrics(file, {})
        write_csv(answers, COLUMNS, ())
        print(f"finetune {name}  skipped: its encoder has seen all labels, a share of them tells nothing")
        return

    def make_encoder() -> Encoder:
        return encoder_of(method, seed, dataset.format, settings["encoder"])

    metrics: dict[str, float] = {}
    few: dict[int, list[float]] = {}
    test = dataset.labelled_rows(TEST)
    columns: dict[str, list[Any]] = dict(
        zip(COLUMNS, (test.tolist(), _names(dataset, dataset.labels[test])), strict=True)
    )
    asked = settings["finetune"].get("fractions", FRACTIONS)
    kept = shares(dataset, asked).values()
    for fraction in set(asked).difference(kept):
        print(
            f"finetune {name}  {100 * fraction:g} % of the labels would be the same images as another share: left out"
        )
    asked_for = settings["finetune"].get("pseudolabels_above", 1) < 1
    clustered = method != SCRATCH and not paths.start(method).exists()
    pseudo = pseudolabels(method, seed, len(dataset)) if asked_for and clustered else None
    began, meter = time.monotonic(), Meter(device)
    for tuned in finetune(make_encoder, dataset, device, seed, method == SCRATCH, pseudo, **settings["finetune"]):
        metric = few_name(tuned.each, tuned.draw) if tuned.each else metric_name(tuned.fraction)
        columns[metric] = _names(dataset, tuned.predicted)
        if tuned.each:
            few.setdefault(tuned.each, []).append(tuned.accuracy)
        else:
            metrics.setdefault("first_fraction", tuned.fraction)
            metrics |= {metric: tuned.accuracy, f"labels_{metric}": tuned.labels, f"loss_{metric}": tuned.loss}
        share = f"{tuned.each} a class, draw {tuned.draw}" if tuned.each else f"{100 * tuned.fraction:g} %"
        labels, accuracy = f"{tuned.labels} labels ({share})", f"{100 * tuned.accuracy:.1f} %"
        if pseudo is not None:
            metrics[f"pseudolabels_{metric}"] = tuned.pseudolabels
            labels += f" and {tuned.pseudolabels} pseudo-labels"
        print(f"finetune {name}  {labels}, {tuned.steps} steps: test accuracy {accuracy}", flush=True)
    for number in set(settings["finetune"].get("each", ())).difference(few):
        print(f"finetune {name}  {number} labels of every class would be all there are: left out")
    energy = watt_hours(meter.read())
    meter.stop()
    metrics |= {f"finetune_each_{number}": statistics.fmean(found) for number, found in few.items()}
    write_csv(answers, list(columns), zip(*columns.values(), strict=True))
    write_metrics(file, {**metrics, "seconds": time.monotonic() - began, **energy})


def _names(dataset: Dataset, numbers: Iterable[int]) -> list[str]:
    return [dataset.classes[number] for number in numbers]


if __name__ == "__main__":
    run(main, str, int)
