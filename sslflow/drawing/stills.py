"""Examples of a data set as pictures: images themselves, of clips the frame in their middle, the middle axial slice of
a volume, a page with the text."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslflow.data.dataset import Dataset
from sslflow.data.fields import Fields
from sslflow.data.formats import TextFormat
from sslflow.data.seen import seen_field
from sslflow.data.tokens import decoded, load_tokenizer
from sslflow.drawing.passage import passages
from sslflow.drawing.slices import axial

PAGE = 96
"""Pixels: the side of the picture of a passage of text."""


def stills(dataset: Dataset[Any], rows: np.ndarray) -> np.ndarray:
    """A picture of each of the rows given, uint8 `(n, 1 or 3, side, side)`."""
    return drawn(dataset, dataset.read(rows)).numpy()


def drawn(dataset: Dataset[Any], examples: Fields | Tensor) -> Tensor:
    """Pictures, uint8 `(n, 1 or 3, side, side)` on the CPU, of what was read of the data set, or of a tensor of its
    kind: uint8 images or volumes, or tokens."""
    found = (seen_field(examples) if isinstance(examples, Fields) else examples).cpu()
    if isinstance(dataset.format, TextFormat):
        return torch.from_numpy(passages(decoded(load_tokenizer(dataset.folder), found.numpy()), PAGE))
    if found.ndim == 5:
        found = axial(found)
    return found[:, : 3 if found.shape[1] > 2 else 1]
