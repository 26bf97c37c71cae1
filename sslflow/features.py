"""Features of prepared images by a frozen encoder, and where they are kept."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sslflow.data.dataset import Dataset
from sslflow.device import MemoryFormat, Precision, autocast, layout, place
from sslflow.encoder import Encoder
from sslflow.files import read_json, replacing, write_json
from sslflow.params import Count
from sslflow.rng import permutation
from sslflow.views import Normalise

CALIBRATED = 4096
"""Images whose means and variances BatchNorm keeps: more hardly change them."""


@torch.no_grad()
def extract(
    encoder: Encoder,
    dataset: Dataset,
    rows: np.ndarray,
    device: torch.device,
    out: np.ndarray | None = None,
    *,
    batch_size: Count = 256,
    precision: Precision = "fp32",
    memory_format: MemoryFormat = "channels_last",
) -> np.ndarray:
    """Features of the rows given, float32 `(len(rows), encoder.dim)`, without augmentation; written into `out` where
    given."""
    features = np.empty((len(rows), encoder.dim), dtype=np.float32) if out is None else out
    normalise = Normalise(dataset.format.mean, dataset.format.std).to(device)
    place(encoder.eval(), device, memory_format)
    for start in range(0, len(rows), batch_size):
        images = normalise(dataset.read(rows[start : start + batch_size]).to(device))
        with autocast(device, precision):
            batch = encoder(images.contiguous(memory_format=layout(memory_format)))
        features[start : start + batch_size] = batch.float().cpu().numpy()
    return features


@torch.no_grad()
def calibrate(
    encoder: Encoder,
    dataset: Dataset,
    rows: np.ndarray,
    device: torch.device,
    *,
    batch_size: Count = 256,
    memory_format: MemoryFormat = "channels_last",
) -> None:
    """Set the running means and variances of the encoder's BatchNorm layers to those of whole, unchanged images: of the
    rows given, or of `CALIBRATED` of them ("precise BatchNorm", arXiv:2105.07576).

    Training saw tiles, small crops or images with holes, whose statistics are others. With several processes all must
    call it, with the same rows.
    """
    if not batch_norms(encoder):
        return
    place(encoder, device, memory_format)
    normalise = Normalise(dataset.format.mean, dataset.format.std).to(device)
    chosen = rows[permutation(len(rows), 0, "calibrate").numpy()[:CALIBRATED]]
    with fresh_statistics(encoder):
        # Batches of one size: each counts the same in the mean.
        for part in np.array_split(chosen, -(-len(chosen) // batch_size)):
            images = normalise(dataset.read(part).to(device))
            encoder(images.contiguous(memory_format=layout(memory_format)))


def batch_norms(module: nn.Module) -> list[Any]:
    """The BatchNorm layers in a module."""
    return [layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]


@contextlib.contextmanager
def fresh_statistics(module: nn.Module) -> Iterator[None]:
    """BatchNorm's running means and variances begin anew and become plain means over the batches that pass inside;
    training mode inside, evaluation mode afterwards."""
    norms = batch_norms(module)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    module.train()
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        module.eval()


class FeatureStore:
    """Features of all images by one encoder: `features.npy`, memory-mapped, rows in manifest order, and `meta.json`."""

    def __init__(self, folder: Path) -> None:
        if not (folder / "meta.json").exists():
            raise ValueError(f"{folder}: no features here; run `dvc repro extract` first")
        facts = read_json(folder / "meta.json")
        self.encoder_sha256: str = facts["encoder_sha256"]
        self.array: np.ndarray = np.load(folder / "features.npy", mmap_mode="r")

    @property
    def dim(self) -> int:
        """Width of the features."""
        return self.array.shape[1]


def write_features(
    folder: Path,
    encoder: Encoder,
    encoder_sha256: str,
    dataset: Dataset,
    device: torch.device,
    *,
    batch_size: Count = 256,
    precision: Precision = "fp32",
    memory_format: MemoryFormat = "channels_last",
) -> FeatureStore:
    """Extract all images of `dataset` into `folder` straight to the disk: memory does not grow with their number."""
    with replacing(folder / "features.npy") as temporary:
        rows = np.arange(len(dataset))
        shape = (len(dataset), encoder.dim)
        out = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float32, shape=shape)
        extract(
            encoder, dataset, rows, device, out,
            batch_size=batch_size, precision=precision, memory_format=memory_format,
        )  # fmt: skip
        out.flush()
    write_json(folder / "meta.json", {"encoder_sha256": encoder_sha256})
    return FeatureStore(folder)
