"""pretrain METHOD SEED: an encoder from unlabelled examples alone, and its training curve."""

from __future__ import annotations

from typing import Any

import torch

from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.features.extract import calibrate
from sslflow.monitoring.drift import Drift
from sslflow.monitoring.watch import Watch
from sslflow.networks.saved import ENCODERS, save_encoder
from sslflow.networks.starts import RANDOM
from sslflow.runtime.device import compute
from sslflow.runtime.distributed import process_group, rank
from sslflow.runtime.files import write_metrics
from sslflow.runtime.rng import derive, permutation
from sslflow.settings.params import Over, Schemas, read
from sslflow.stages.entry import run
from sslflow.training.continued import Continued, hold
from sslflow.training.fit import fit
from sslflow.training.ingredients import build, example_rows, of_examples, own_schemas
from sslflow.training.method import find, kind_of
from sslflow.training.provenance import how_examples_are, made_by, weights_of
from sslflow.training.run import Journal, Run
from sslflow.training.saved import save_method

COMPARED = 2000
"""Training examples on which an encoder is compared with what it started from."""


def schemas(method: str) -> Schemas:
    """The sections of params.yaml that this stage reads, and what they configure."""
    kind, block = find(method), f"methods.{method}"
    return {
        "compute": compute,
        "encoder": ENCODERS[kind_of(kind)],
        "pretrain": Journal,
        block: kind,
        **own_schemas(method),
        f"{block}.start": Over("start", Continued),
        f"{block}.views": Over("views", kind.Views),
        f"{block}.train": Over("train", fit),
    }


def main(method: str, seed: int) -> None:
    settings = read(schemas(method))
    device = compute(**settings["compute"])
    with process_group(device):
        _pretrain(method, seed, settings, device)


def _pretrain(name: str, seed: int, settings: dict[str, dict[str, Any]], device: torch.device) -> None:
    dataset, kind, block = Dataset[Any](), find(name), f"methods.{name}"
    rows = example_rows(kind, dataset)
    torch.manual_seed(derive(seed, "init"))
    start = Continued(**settings[f"{block}.start"])
    words = settings.get(f"{block}.text_encoder", {})
    given = of_examples(dataset, rows, settings["encoder"], start.weights, start.teacher, words)
    method = build(kind, given, settings[block])
    if start.given:
        for encoder in method.encoders.values():
            hold(encoder, start.blocks, len(rows))
    views = kind.Views(dataset.format, **settings[f"{block}.views"])

    journal, train = Journal(**settings.pop("pretrain")), settings[f"{block}.train"]
    files = [dataset.folder / "manifest.parquet", dataset.folder / "dataset.json"]
    files += [paths.start(name) for name in (start.weights, start.teacher) if name != RANDOM]
    training = Run("pretrain", name, seed, journal, device, settings, *files, unit=dataset.format.unit)
    watched = rows[permutation(len(rows), seed, "diagnostics")[: journal.diagnostics].numpy()]
    seen = dataset.for_views(views.resizes, device)
    watch = Watch(method, views, seen, watched, device, seed, train.get("memory_format", "channels_last"))
    compared = rows[permutation(len(rows), seed, "drift")[:COMPARED].numpy()]
    drift = Drift(method.encoder, dataset, compared, device, watch.memory_format, training.noted)
    continued = start if start.given else None
    for moment in training.train(method, views, seen, rows, f"{block}.train", continued=continued, **train):
        training.look(moment, watch, f"{block}.train")
        if start.given:
            moment.signs.update(drift(moment.step))
    kept = drift.restore_best() if start.keep == "best" else None
    facts = {} if kept is None else {"kept_step": kept}
    for encoder in method.encoders.values():
        calibrate(encoder, dataset, rows, device, memory_format=watch.memory_format)
    if rank():
        return
    (encoder,) = method.encoders.values()
    encoder.facts = {
        **how_examples_are(dataset),
        **made_by(name, seed, settings, dataset, len(rows)),
        **weights_of(start=start.weights, teacher=start.teacher),
    }
    save_encoder(encoder, paths.encoder(name, seed))
    save_method(method, paths.trained(name, seed))
    training.write_curve(paths.curve(name, seed))
    metrics = {**training.metrics(len(rows), dataset.format.unit), **facts}
    write_metrics(paths.metrics("pretrain", paths.run_name(name, seed)), metrics)
    training.remove_checkpoint()
    steps, seconds = training.curve[-1]["step"], training.seconds
    if kept is not None:
        print(
            f"{training.label}  kept the encoder of step {kept} of {steps}: the best kNN on labelled training "
            f"{dataset.format.unit}"
        )
    print(f"{training.label}  {steps} steps in {seconds:.0f} s, wrote {paths.encoder(name, seed)}")


if __name__ == "__main__":
    run(main, str, int)
