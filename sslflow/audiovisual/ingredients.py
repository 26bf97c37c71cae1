"""Which clips a method is trained on, and what it is given besides its settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslflow.audiovisual.method import ClipMethod, PairMethod
from sslflow.audiovisual.spectrogram import LogMel, sound_statistics
from sslflow.audiovisual.windows import BATCH, ClipSource
from sslflow.data.dataset import Dataset
from sslflow.data.formats import ClipFormat
from sslflow.data.splits import TRAIN
from sslflow.networks.encoder import Encoder
from sslflow.networks.weights import started_from
from sslflow.runtime.rng import permutation
from sslflow.training.ingredients import Factories, ingredients


def needs_sound(kind: type[ClipMethod]) -> bool:
    """Whether the method can be trained only on clips that can be heard."""
    return not {"sound_encoder", "statistics"}.isdisjoint(ingredients(kind))


def clip_rows(
    kind: type[ClipMethod], name: str, clips: Dataset[ClipFormat], share: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The rows that the method `name` is trained on, labelled ones where it learns labels, and those that `held_out`
    keeps back, a share of the sources. Raises `ValueError` where there are too few clips to learn from (a method that
    learns labels says so itself)."""
    learns_labels = "labels" in ingredients(kind)
    rows = clips.labelled_rows(TRAIN) if learns_labels else clips.pretraining_rows
    if needs_sound(kind):
        rows = rows[clips.column("audible", rows)]
    if len(rows) < 2 and not learns_labels:
        raise ValueError(f"{name} needs at least two clips to train on, and there are {len(rows)}")
    if issubclass(kind, PairMethod) and len(np.unique(clips.groups[rows])) < 2:
        raise ValueError(f"{name} needs clips of at least two sources to train on: of one there are no wrong pairs")
    held = held_out(kind, clips.groups, rows, share, seed)
    return np.setdiff1d(rows, held), held


def held_out(kind: type[ClipMethod], groups: np.ndarray, rows: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Those of the rows that choose a threshold, int64: the clips of a share of their sources, of which two stay to
    train on. What was trained on scores higher than anything new, and would set it too high. None for a method that
    needs no threshold, and where the share is not two sources."""
    found = np.unique(groups[rows])
    count = min(round(share * len(found)), len(found) - 2)
    if not issubclass(kind, PairMethod) or kind.threshold is not None or count < 2:
        return rows[:0]
    chosen = found[permutation(len(found), seed, "held out").numpy()[:count]]
    return rows[np.isin(groups[rows], chosen)]


def of_clips(
    clips: Dataset[ClipFormat], rows: np.ndarray, picture: Mapping[str, Any], sound: Mapping[str, Any], start: str = ""
) -> Factories:
    """What there is for methods of clips: encoders with the settings given, that of pictures from the weights `start`
    where they are named; the labels of the rows; and the statistics of their sounds."""
    return {
        "encoder": lambda: started_picture(clips, start) if start else picture_encoder(clips, picture),
        "sound_encoder": lambda: sound_encoder(sound),
        "labels": lambda: torch.from_numpy(clips.labels[rows].copy()),
        "statistics": lambda: statistics_of(clips, rows),
    }


def picture_encoder(clips: Dataset[ClipFormat], settings: Mapping[str, Any]) -> Encoder:
    """An encoder of frames, with random weights."""
    return Encoder(3, clips.format.side, **settings)


def sound_encoder(settings: Mapping[str, Any]) -> Encoder:
    """An encoder of spectrograms, with random weights."""
    # The size is for ViTs only: 64 bands; a second has 101 columns, and positions are interpolated.
    return Encoder(1, 64, **settings)


def started_picture(clips: Dataset[ClipFormat], start: str) -> Encoder:
    """The encoder of frames that a run starts from: the weights of that name in `starts`, to which frames are brought,
    or the file of an encoder of ours, of images of any size. Raises `ValueError` for weights that can't be had, or are
    not for three channels."""
    encoder = started_from(start, clips.format.picture, where=None)
    if encoder.channels != 3:
        raise ValueError(
            f"{start} is for images of {encoder.channels} channels, and frames have 3: pretrain with data.channels: 3"
        )
    return encoder


def statistics_of(clips: ClipSource, rows: np.ndarray) -> Tensor:
    """The `sound_statistics` of the clips given, `(clips, width)`."""
    log_mel = LogMel(clips.format.rate)
    parts = np.array_split(rows, -(-len(rows) // BATCH))
    return torch.cat([sound_statistics(log_mel(clips.read(part)["sound"])) for part in parts])
