"""Sound and picture at the same moment, or a moment of the same clip some time away (arXiv:1807.00230)?"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn

from sslflow.audiovisual.method import PairMethod
from sslflow.audiovisual.views import COLOUR, CROP, Sound, StackViews
from sslflow.data.fields import Fields
from sslflow.data.formats import ClipFormat
from sslflow.networks.encoder import Encoder
from sslflow.runtime.device import full_precision
from sslflow.runtime.distributed import gather
from sslflow.settings.params import Count, Fraction, Positive
from sslflow.training.method import Batch, Losses
from sslflow.views.strengths import Colour, Crop

UNCHANGED = replace(COLOUR, hue=0.0, jitter=0.0)


class SynchronyViews(StackViews):
    """Two windows of every clip, at least `gap` seconds from start to start: frames `(n, 2, frames, 3, side, side)`,
    sounds `(n, 2, 1, mels, frames)`, sources int64 `(n,)`.

    Which of the two is the earlier one is chance. Each is shown with either sound: when windows are tells nothing.
    """

    def __init__(
        self,
        format: ClipFormat,
        *,
        window: Positive = 1.0,
        gap: Positive = 1.0,
        frames: Annotated[int, Ge(3)] = 12,
        crop: Crop = CROP,
        flip: Fraction = 0.5,
        colour: Colour = UNCHANGED,
        sound: Sound = Sound(hidden_time=0.0),
    ) -> None:
        """`gap` in seconds; the rest as for `StackViews`. Colours are drawn for each frame: they hide what moves in
        brightness. Raises `ValueError` for windows and a gap that the clips don't hold."""
        super().__init__(format, window=window, frames=frames, crop=crop, flip=flip, colour=colour, sound=sound)
        self.gap = gap
        if gap > self.span:
            raise ValueError(
                f"two windows of {window:g} s that begin {gap:g} s apart do not fit into clips of {format.seconds:g} s:"
                " set the gap or the window smaller, or clips.seconds larger"
            )

    def of_windows(self, fields: Fields, starts: Tensor) -> tuple[Tensor, ...]:
        both = starts.unbind(dim=1)
        pictures = torch.stack([self.pictures(fields, starts) for starts in both], dim=1)
        return pictures, torch.stack([self.sounds(fields, starts) for starts in both], dim=1), fields["groups"]

    def drawn(self, count: int, numbers: torch.Generator | None = None) -> Tensor:
        return self.two_starts(count, numbers)

    def two_starts(self, count: int, numbers: torch.Generator | None = None) -> Tensor:
        """When two windows of each clip begin, all pairs that are far enough apart as likely, `(count, 2)` seconds."""
        drawn = (torch.rand(count, 2, generator=numbers) * (self.span - self.gap)).sort(dim=1).values
        drawn[:, 1] += self.gap
        swapped = torch.rand(count, 1, generator=numbers) < 0.5
        return torch.where(swapped, drawn.flip(1), drawn)


class Synchrony(PairMethod):
    """Embeddings of either side keep the order of time: what happens in the frames stands against what is heard then.
    Of frames only by how much their features change from one to the next counts: what there is to see all the time
    tells one clip from others, but nothing of the moment.

    A wrong answer is a window of another source or, the harder one, the same clip's other window. Those come in with
    time, as in the paper: from the beginning they would be a riddle before there is anything to solve it with.

    Settings: `dim` and `hidden`, widths of the embedding of each moment and of the layer before it; `temperature`, by
    which cosine similarities are divided; `easy`, `all`: shares of the run, until the first of which the harder wrong
    answers don't count, and from the second of which they count in full.
    """

    Views = SynchronyViews
    localises = False
    wrong = "moment"

    def __init__(
        self,
        encoder: Encoder,
        sound_encoder: Encoder,
        *,
        dim: Count = 64,
        hidden: Count = 128,
        temperature: Positive = 0.1,
        easy: Fraction = 0.2,
        all: Fraction = 0.5,
    ) -> None:
        super().__init__()
        self.encoder, self.sound_encoder = encoder, sound_encoder
        self.projector = over_time(encoder.dim, hidden, dim)
        self.sound_projector = over_time(sound_encoder.map_dim, hidden, dim)
        self.temperature, self.easy, self.all = temperature, easy, all

    def training_step(self, batch: Batch) -> Losses:
        frames, sounds, sources = batch.views
        pictures = gather(self.embed_pictures(frames.flatten(0, 1)))
        heard = gather(self.embed_sounds(sounds.flatten(0, 1)))
        table = self.table(pictures, heard)
        own, other = table.diagonal(), table.gather(1, _swapped(table)[:, None])[:, 0]
        loss = synchrony_loss(table / self.temperature, gather(sources), self.weight(batch.progress))
        return {"loss": loss, "accuracy": (own > other).float().mean()}

    def weight(self, progress: float) -> float:
        """How much the same clip's other window counts as a wrong answer, from 0 to 1."""
        if progress >= self.all:
            return 1.0
        return max(0.0, (progress - self.easy) / (self.all - self.easy)) if self.all > self.easy else 0.0

    def embed_pictures(self, pictures: Tensor) -> Tensor:
        """Of frames `(n, frames, 3, side, side)`, an embedding of each step from one to the next, `(n, dim, frames −
        1)`."""
        features = self.encoder(pictures.flatten(0, 1)).unflatten(0, pictures.shape[:2])
        changes = (features[:, 1:] - features[:, :-1]).abs()
        return self.projector(changes.transpose(1, 2)).float()

    def embed_sounds(self, sounds: Tensor) -> Tensor:
        """An embedding of each moment that the sound encoder's map tells apart, `(n, dim, moments)`."""
        return self.sound_projector(self.sound_encoder.map(sounds).mean(dim=2)).float()

    def scores(self, pictures: Tensor, sounds: Tensor) -> Tensor:
        return (self._row(pictures, pictures) * self._row(sounds, pictures)).sum(dim=1)

    def table(self, pictures: Tensor, sounds: Tensor) -> Tensor:
        return self._row(pictures, pictures) @ self._row(sounds, pictures).T

    def _row(self, moments: Tensor, like: Tensor) -> Tensor:
        """Embeddings of moments `(n, dim, m)` as one row of length 1, with as many moments as `like` has."""
        if moments.shape[2] != like.shape[2]:
            moments = F.interpolate(moments, size=like.shape[2], mode="linear", align_corners=False)
        return F.normalize(moments.flatten(1), dim=1)


def over_time(width: int, hidden: int, dim: int) -> nn.Sequential:
    """Features `(n, width, moments)` to embeddings `(n, dim, moments)`; each sees the moments before and after it, so
    that it can tell what begins."""
    return nn.Sequential(
        nn.Conv1d(width, hidden, 3, padding=1, bias=False),
        nn.BatchNorm1d(hidden),
        nn.ReLU(inplace=True),
        nn.Conv1d(hidden, dim, 1),
    )


@full_precision
def synchrony_loss(logits: Tensor, sources: Tensor, weight: float) -> Tensor:
    """Cross entropy, both ways, of finding a window's own sound in `logits` `(2n, 2n)`, in which windows 2i and 2i + 1
    are of clip i, which is of `sources[i]`: scalar.

    The same clip's other window counts `weight` times, other clips of the same source don't count.
    """
    same = sources.repeat_interleave(2)
    hidden = same[:, None] == same
    rows = torch.arange(len(logits), device=logits.device)
    hidden[rows, rows] = False
    hidden[rows, _swapped(logits)] = weight == 0
    logits = logits.masked_fill(hidden, -torch.inf)
    if 0 < weight < 1:
        log = torch.zeros_like(logits)
        log[rows, _swapped(logits)] = torch.tensor(weight).log().to(logits)
        logits = logits + log
    return (F.cross_entropy(logits, rows) + F.cross_entropy(logits.T, rows)) / 2


def _swapped(table: Tensor) -> Tensor:
    """For each window the number of the same clip's other one."""
    return torch.arange(len(table), device=table.device) ^ 1
