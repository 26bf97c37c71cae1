"""The names of the splits, and how a set without a split of its own is divided. Imports no torch: worker processes
import it too."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from typing import Final, Literal

import numpy as np

Split = Literal["pool", "train", "test"]

POOL: Final = "pool"
TRAIN: Final = "train"
TEST: Final = "test"
NO_LABEL = -1


def held_out(names: Sequence[str], labels: Sequence[int] | np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Indices of the images to test on: of each class `fraction`, rounded, at least one of each but never all.

    Chosen by a hash of seed and name (as NFC, so that a Mac chooses the same), so that the choice needs no order, no
    generator, and hardly changes when images are added.
    """
    labels = np.asarray(labels)
    chosen = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = min(max(round(fraction * len(members)), 1), len(members) - 1) if fraction > 0 else 0
        chosen += sorted(members, key=lambda row: placed(seed, "split", names[int(row)]))[:count]
    return np.asarray(sorted(chosen), dtype=np.int64)


def placed(seed: int, use: str, name: str) -> bytes:
    """By what a name is sorted into the order that is drawn for a use, such as `split`."""
    name = unicodedata.normalize("NFC", name)
    return hashlib.sha256(f"{seed} {use} {name}".encode("utf-8", "surrogateescape")).digest()
