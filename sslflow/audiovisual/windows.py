"""Windows of clips that are the same in every run, and what a method makes of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from sslflow.audiovisual.method import ClipMethod, PairMethod
from sslflow.audiovisual.views import ClipViews
from sslflow.data.fields import Fields
from sslflow.data.formats import ClipFormat
from sslflow.networks.batch_norm import batch_norms, fresh_statistics
from sslflow.runtime.rng import derive, permutation
from sslflow.training.method import Batch

BATCH = 64
SETTLED = 2048
"""Clips whose means and variances BatchNorm keeps."""


class ClipSource(Protocol):
    """What is needed of a `Dataset` of clips."""

    format: ClipFormat

    def read(self, rows: np.ndarray) -> Fields:
        """The clips of the rows given, in that order."""
        ...


@dataclass(frozen=True)
class Windows:
    """Stretches of clips."""

    rows: np.ndarray
    """Which clip each is of, int64 `(w,)`."""
    starts: Tensor
    """When it begins, seconds from the clip's start, float32 `(w,)`."""

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, chosen: slice) -> Windows:
        return Windows(self.rows[chosen], self.starts[chosen])


def chosen_rows(rows: np.ndarray, most: int, seed: int) -> np.ndarray:
    """`most` of the rows by chance, in order; all where there are no more."""
    return np.sort(rows[permutation(len(rows), seed, "rows").numpy()[:most]])


def windows(views: ClipViews, rows: np.ndarray, seed: int, per_clip: int = 1, two: bool = False) -> Windows:
    """Windows of the clips, drawn as in training but from `seed`: `per_clip` of each, one after another; with `two`,
    twice as many, in pairs that the views' `two_starts` draws."""
    draw: Any = getattr(views, "two_starts", None) if two else views.starts
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "windows"))
        starts = torch.stack([draw(len(rows)).view(len(rows), -1) for _ in range(per_clip)], dim=1).flatten(1)
    return Windows(rows.repeat(starts.shape[1]), starts.flatten())


@torch.no_grad()
def seen(
    views: ClipViews, clips: ClipSource, chosen: Windows, device: torch.device, sound: bool = True
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Pictures and, where asked for, spectrograms of the windows, a batch at a time, with nothing changed by chance."""
    views.to(device).eval()
    for first in range(0, len(chosen), BATCH):
        part = chosen[first : first + BATCH]
        fields, starts = clips.read(part.rows).to(device), part.starts.to(device)
        yield views.pictures(fields, starts), views.sounds(fields, starts) if sound else None
    views.train()


@torch.no_grad()
def embed(
    method: PairMethod, views: ClipViews, clips: ClipSource, chosen: Windows, device: torch.device
) -> tuple[Tensor, Tensor]:
    """The method's embeddings of the pictures and of the sounds of windows, `(w, …)` each, on the CPU."""
    method.to(device).eval()
    found = [
        (method.embed_pictures(pictures).cpu(), method.embed_sounds(sounds).cpu())
        for pictures, sounds in seen(views, clips, chosen, device)
        if sounds is not None
    ]
    pictures, sounds = (torch.cat(part) for part in zip(*found, strict=True))
    return pictures, sounds


@torch.no_grad()
def settle(
    method: ClipMethod, views: ClipViews, clips: ClipSource, rows: np.ndarray, device: torch.device, seed: int
) -> None:
    """Set the running means and variances of all of a method's BatchNorm layers to those of whole frames and unchanged
    sounds of the clips given, as `sslflow.features.extract.calibrate` does for encoders."""
    if not batch_norms(method) or len(rows) < 2:
        method.eval()
        return
    method.to(device)
    views.to(device).eval()
    rows = rows[permutation(len(rows), seed, "settle").numpy()[:SETTLED]]
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), fresh_statistics(method):
        torch.manual_seed(derive(seed, "settle"))
        for part in np.array_split(rows, -(-len(rows) // BATCH)):
            numbers = torch.zeros(len(part), dtype=torch.int64, device=device)
            method.training_step(Batch(views(clips.read(part).to(device)), numbers, progress=1.0))
    views.train()
