"""extract METHOD SEED: the features of all prepared examples by a run's frozen encoder."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.features.extract import extract, write_features
from sslflow.networks.saved import load_encoder, suits
from sslflow.runtime.device import compute
from sslflow.runtime.distributed import process_group, rank
from sslflow.runtime.files import sha256, write_metrics
from sslflow.settings.params import read
from sslflow.stages.entry import run


def schemas(method: str) -> Mapping[str, Callable[..., Any]]:
    """The sections of params.yaml that this stage reads, and what they configure."""
    return {"compute": compute, "extract": extract}


def main(method: str, seed: int) -> None:
    settings = read(schemas(method))
    device = compute(**settings["compute"])
    with process_group(device):
        _extract(method, seed, settings, device)


def _extract(method: str, seed: int, settings: dict[str, dict[str, Any]], device: torch.device) -> None:
    dataset = Dataset[Any]()
    file = paths.encoder(method, seed)
    encoder = load_encoder(file)
    unit = dataset.format.unit
    if not suits(encoder, dataset.format):
        raise ValueError(f"{file} was made for other {unit} than those in {dataset.folder}; run `dvc repro pretrain`")
    started = time.monotonic()
    name = paths.run_name(method, seed)
    write_features(paths.features(method, seed), encoder, sha256(file), dataset, device, **settings["extract"])
    if rank():
        return
    seconds = time.monotonic() - started
    metrics = {unit: len(dataset), "dim": encoder.dim, f"{unit}_per_second": len(dataset) / seconds}
    write_metrics(paths.metrics("extract", name), metrics)
    print(f"extract {name}  {len(dataset)} {unit} to {encoder.dim} features in {seconds:.0f} s")


if __name__ == "__main__":
    run(main, str, int)
