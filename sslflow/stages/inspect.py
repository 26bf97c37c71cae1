"""inspect METHOD SEED: what the curve of a pretraining run says about it, and what its method makes of examples."""

from __future__ import annotations

from typing import Any

import torch

from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.judging.judge import judge
from sslflow.judging.pictures import Shown, sheet
from sslflow.networks.saved import ENCODERS
from sslflow.runtime.device import compute, place
from sslflow.runtime.files import replacing
from sslflow.runtime.rng import derive, permutation
from sslflow.settings.params import Over, Schemas, read
from sslflow.stages.entry import run
from sslflow.training.continued import Continued
from sslflow.training.fit import fit
from sslflow.training.ingredients import build, example_rows, of_examples, own_schemas
from sslflow.training.method import find, kind_of
from sslflow.training.saved import load_weights


def schemas(method: str) -> Schemas:
    """The sections of params.yaml that this stage reads, and what they configure."""
    kind, block = find(method), f"methods.{method}"
    return {
        "compute": compute,
        "encoder": ENCODERS[kind_of(kind)],
        "inspect": Shown,
        block: kind,
        **own_schemas(method),
        f"{block}.start": Over("start", Continued),
        f"{block}.views": Over("views", kind.Views),
        f"{block}.train": Over("train", fit),
    }


def main(name: str, seed: int) -> None:
    settings = read(schemas(name))
    device = compute(**settings["compute"])
    dataset, kind, block = Dataset[Any](), find(name), f"methods.{name}"
    rows, train = example_rows(kind, dataset), settings[f"{block}.train"]
    start = Continued(**settings[f"{block}.start"])
    words = settings.get(f"{block}.text_encoder", {})
    given = of_examples(dataset, rows, settings["encoder"], start.weights, start.teacher, words)
    method = build(kind, given, settings[block])
    load_weights(method, paths.trained(name, seed))
    place(method, device, train.get("memory_format", "channels_last"))
    batch_size = min(train["batch_size"], len(rows))
    judge(
        f"inspect {name}-{seed}",
        method,
        paths.curve(name, seed),
        batch_size,
        dataset.format.unit,
        paths.verdict(name, seed),
    )

    views = kind.Views(dataset.format, **settings[f"{block}.views"]).to(device)
    shown = permutation(len(rows), seed, "diagnostics")[: Shown(**settings["inspect"]).pictures].numpy()
    fields = dataset.read(rows[shown]).to(device)
    torch.manual_seed(derive(seed, "pictures"))
    with replacing(paths.pictures(name, seed)) as temporary:
        sheet(method, views(fields), fields, dataset).save(temporary, format="PNG")


if __name__ == "__main__":
    run(main, str, int)
