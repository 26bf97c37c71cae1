"""match_control NAME SEED: what is answered about captions of test images by the captions of the training image that is
most like them: by random weights (`random`), `pixels`, weights that `starts` names; or without looking at an image
(`blind`)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.examination.captions.answers import blindly, by_nearest
from sslflow.examination.captions.exam import chance, judged, means, write_answers
from sslflow.examination.captions.questions import Match, Questions, questions, tested
from sslflow.features.extract import extract
from sslflow.features.pixels import pixels
from sslflow.networks.saved import ENCODERS
from sslflow.networks.starts import BLIND
from sslflow.networks.weights import encoder_of
from sslflow.runtime.device import compute
from sslflow.runtime.files import write_metrics
from sslflow.settings.params import read
from sslflow.settings.sections import data_kind
from sslflow.stages.entry import run


def schemas(kind: str) -> Mapping[str, Callable[..., Any]]:
    """The sections of params.yaml that this stage reads, and what they configure."""
    return {"compute": compute, "encoder": ENCODERS[kind], "extract": extract, "match": Match}


def main(name: str, seed: int) -> None:
    settings = read(schemas(data_kind()))
    device = compute(**settings["compute"])
    dataset, title, folder = Dataset[Any](), paths.run_name(name, seed), paths.matched(name, seed)
    asked = questions(dataset, Match(**settings["match"]))
    if isinstance(asked, str):
        print(f"match {title}  skipped: {asked}")
        write_answers(folder, {}, tested(dataset))
        write_metrics(paths.metrics("match", title), {})
        return
    began = time.monotonic()
    if name == BLIND:
        answers = blindly(asked)
    else:
        features, bank = _features(name, seed, dataset, asked, device, settings)
        answers = by_nearest(features, bank, asked)
    table = judged(asked, answers)
    found = means(asked, *table)
    write_answers(folder, {"nearest": table}, tested(dataset))
    metrics = {**chance(asked), "images": float(len(asked.rows)), "texts": float(len(asked.texts))}
    metrics |= {f"nearest_{key}": value for key, value in found.items()}
    write_metrics(paths.metrics("match", title), {**metrics, "seconds": time.monotonic() - began})
    classes = f"zero-shot {100 * found['zero_shot']:.1f} %, " if "zero_shot" in found else ""
    print(f"match {title}  {classes}words of captions {100 * found['told_f1']:.1f} %")


def _features(
    name: str,
    seed: int,
    dataset: Dataset,
    asked: Questions,
    device: torch.device,
    settings: Mapping[str, Mapping[str, Any]],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the test images and of the bank."""
    if name == "pixels":
        found = [pixels(dataset, rows, device) for rows in (asked.rows, asked.bank)]
    else:
        encoder = encoder_of(name, seed, dataset.format, settings["encoder"])
        found = [
            torch.from_numpy(extract(encoder, dataset, rows, device, **settings["extract"])).to(device)
            for rows in (asked.rows, asked.bank)
        ]
    return found[0], found[1]


if __name__ == "__main__":
    run(main, str, int)
