"""Features of prepared examples by a frozen encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from sslflow.data.dataset import Dataset
from sslflow.data.fields import Readable
from sslflow.data.seen import Seen, seen_field
from sslflow.features.store import FeatureStore
from sslflow.networks.batch_norm import batch_norms, fresh_statistics
from sslflow.networks.saved import AnyEncoder
from sslflow.runtime.device import MemoryFormat, Precision, autocast, laid_out, place
from sslflow.runtime.files import replacing, write_json
from sslflow.runtime.rng import permutation
from sslflow.settings.params import Count

CALIBRATED = 4096
"""Images whose means and variances BatchNorm keeps: more hardly change them."""


class NotFinite(ValueError):
    """Features that are NaN or infinite."""


@torch.no_grad()
def extract(
    encoder: AnyEncoder,
    dataset: Readable,
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
    seen = Seen(dataset.format).to(device)
    place(encoder.eval(), device, memory_format)
    for start in range(0, len(rows), batch_size):
        examples = seen(seen_field(dataset.read(rows[start : start + batch_size])).to(device))
        with autocast(device, precision):
            batch = encoder(laid_out(examples, memory_format))
        features[start : start + batch_size] = batch.float().cpu().numpy()
    return features


@torch.no_grad()
def calibrate(
    encoder: AnyEncoder,
    dataset: Readable,
    rows: np.ndarray,
    device: torch.device,
    *,
    batch_size: Count = 256,
    memory_format: MemoryFormat = "channels_last",
) -> None:
    """Set the running means and variances of the encoder's BatchNorm layers to those of whole, unchanged examples: of
    the rows given, or of `CALIBRATED` of them ("precise BatchNorm", arXiv:2105.07576).

    Training saw tiles, small crops or images with holes, whose statistics are others. With several processes all must
    call it, with the same rows.
    """
    if not batch_norms(encoder):
        return
    place(encoder, device, memory_format)
    seen = Seen(dataset.format).to(device)
    chosen = rows[permutation(len(rows), 0, "calibrate").numpy()[:CALIBRATED]]
    with fresh_statistics(encoder):
        # Batches of one size: each counts the same in the mean.
        for part in np.array_split(chosen, -(-len(chosen) // batch_size)):
            encoder(laid_out(seen(seen_field(dataset.read(part)).to(device)), memory_format))


def write_features(
    folder: Path,
    encoder: AnyEncoder,
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
