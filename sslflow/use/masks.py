"""Masks as PNG files of numbers, with a colour for each class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sslflow.data.annotated import IGNORED
from sslflow.runtime.files import write_csv

UNSEEN = 224, 224, 192
"""The colour of pixels that no class is given, as in the masks of Pascal VOC."""


def palette() -> np.ndarray:
    """Colours of the classes by number, uint8 `(256, 3)`, as in Pascal VOC: the first is black, and each bit of a
    number sets one of a channel."""
    numbers = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for place in range(8):
        for channel in range(3):
            bit = numbers >> (3 * place + channel) & 1
            colours[:, channel] |= (bit << (7 - place)).astype(np.uint8)
    colours[IGNORED] = UNSEEN
    return colours


def write_classes(file: Path, classes: Sequence[str], colours: np.ndarray) -> None:
    """A table of the classes: `number`, `name`, `colour`."""
    rows = [(number, name, f"#{bytes(colours[number]).hex()}") for number, name in enumerate(classes)]
    write_csv(file, ("number", "name", "colour"), rows)
