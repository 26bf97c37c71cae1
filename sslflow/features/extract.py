"""Features of prepared examples by a frozen encoder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sslflow.data.dataset import Dataset
from sslflow.data.fields import Readable
from sslflow.data.seen import Seen, seen_field
from sslflow.networks.batch_norm import batch_norms, fresh_statistics
from sslflow.networks.saved import AnyEncoder
from sslflow.runtime.device import MemoryFormat, Precision, autocast, laid_out, place
from sslflow.runtime.distributed import gather_uneven, rank, world_size
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
    batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    start = 0
    for found in _of_batches(encoder, dataset, batches, device, precision, memory_format):
        features[start : start + len(found)] = found.cpu().numpy()
        start += len(found)
    return features


@torch.no_grad()
def extract_together(
    encoder: AnyEncoder,
    dataset: Readable,
    rows: np.ndarray,
    device: torch.device,
    *,
    batch_size: Count = 256,
    precision: Precision = "fp32",
    memory_format: MemoryFormat = "channels_last",
) -> Iterator[np.ndarray]:
    """What `extract` gives, some rows after others, by all processes, which take turns: batches are those of a single
    process, and so are the bits on CPUs. All must call it, and all get everything."""
    size = batch_size * world_size()
    first = rank() * batch_size
    own = [rows[start:][first : first + batch_size] for start in range(0, len(rows), size)]
    for found in _of_batches(encoder, dataset, own, device, precision, memory_format):
        yield gather_uneven(found).cpu().numpy()


def _of_batches(
    encoder: AnyEncoder,
    dataset: Readable,
    batches: Iterable[np.ndarray],
    device: torch.device,
    precision: Precision,
    memory_format: MemoryFormat,
) -> Iterator[Tensor]:
    """Features of each batch of rows, on the device."""
    seen = Seen(dataset.format).to(device)
    place(encoder.eval(), device, memory_format)
    for batch in batches:
        if not len(batch):
            yield torch.zeros(0, encoder.dim, device=device)
            continue
        examples = seen(seen_field(dataset.read(batch)).to(device))
        with autocast(device, precision):
            found = encoder(laid_out(examples, memory_format))
        yield found.float()


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
) -> None:
    """Extract all images of `dataset` into `folder` straight to the disk: memory does not grow with their number. With
    several processes all must call it, and the first writes."""
    found = extract_together(
        encoder, dataset, np.arange(len(dataset)), device,
        batch_size=batch_size, precision=precision, memory_format=memory_format,
    )  # fmt: skip
    if rank():
        for _ in found:
            pass
        return
    with replacing(folder / "features.npy") as temporary:
        shape = (len(dataset), encoder.dim)
        out = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float32, shape=shape)
        start = 0
        for part in found:
            out[start : start + len(part)] = part
            start += len(part)
        out.flush()
    write_json(folder / "meta.json", {"encoder_sha256": encoder_sha256})
