"""AVE-Net, AVID: a frame is nearer to its own sound than to others, and the reverse (arXiv:1712.06651, 2004.12943)."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from sslflow.audiovisual.maps import cosine_maps
from sslflow.audiovisual.method import PairMethod
from sslflow.audiovisual.views import ClipWindowViews
from sslflow.data.fields import Fields
from sslflow.networks.encoder import Encoder
from sslflow.networks.heads import mlp
from sslflow.networks.symmetric import both_ways
from sslflow.runtime.device import full_precision
from sslflow.runtime.distributed import gather
from sslflow.settings.params import Positive, Widths
from sslflow.training.method import Batch, Choices, Losses

Over = Literal["max", "softmax", "mean"]


class AlignmentViews(ClipWindowViews):
    """Frames, the sounds of the same windows, and the numbers of the sources that they come from, int64 `(n,)`."""

    def of_windows(self, fields: Fields, starts: Tensor) -> tuple[Tensor, ...]:
        return self.pictures(fields, starts), self.sounds(fields, starts), fields["groups"]


class Alignment(PairMethod):
    """Cells of the picture's map and sounds meet on one sphere; a picture is as near to a sound as its nearest cells
    are, or as its cells are on average. The map of nearnesses shows where the sound comes from.

    Other clips of the same source are no wrong answers: they are left out, since a frame of a guitar fits the guitar a
    few seconds later as well, and to learn the difference is to learn what only this one video knows.

    Settings: `projector`, widths of either side's head; `temperature`, by which cosine similarities are divided;
    `over`: what counts of the cells, `max`, `mean`, or `softmax`, in which the nearest ones count most, but all of them
    learn.
    """

    Views = AlignmentViews

    def __init__(
        self,
        encoder: Encoder,
        sound_encoder: Encoder,
        *,
        projector: Widths = (128, 128),
        temperature: Positive = 0.1,
        over: Over = "max",
    ) -> None:
        super().__init__()
        self.encoder, self.sound_encoder = encoder, sound_encoder
        self.projector = mlp(encoder.map_dim, *projector)
        self.sound_projector = mlp(sound_encoder.dim, *projector)
        self.temperature = temperature
        self.over: Over = over

    def training_step(self, batch: Batch) -> Losses:
        frames, sounds, sources = batch.views
        pictures, heard = gather(self.embed_pictures(frames)), gather(self.embed_sounds(sounds))
        table = self.table(pictures, heard)
        accuracy = (table.argmax(dim=1) == torch.arange(len(table), device=table.device)).float().mean()
        return {"loss": both_ways(table / self.temperature, others_of(gather(sources))), "accuracy": accuracy}

    def embed_pictures(self, pictures: Tensor) -> Tensor:
        """Each cell's embedding, normalised, `(n, dim, rows * columns)`."""
        cells = self.encoder.map(pictures).flatten(2).transpose(1, 2)
        projected = self.projector(cells.flatten(0, 1)).float()
        return F.normalize(projected, dim=1).view(len(cells), cells.shape[1], -1).transpose(1, 2)

    def embed_sounds(self, sounds: Tensor) -> Tensor:
        return F.normalize(self.sound_projector(self.sound_encoder(sounds)).float(), dim=1)

    def scores(self, pictures: Tensor, sounds: Tensor) -> Tensor:
        return over_cells(torch.einsum("ndk,nd->nk", pictures, sounds), self.over, self.temperature)

    def table(self, pictures: Tensor, sounds: Tensor) -> Tensor:
        return nearness(pictures, sounds, self.over, self.temperature)

    def localise(self, pictures: Tensor, sounds: Tensor) -> Tensor:
        rows, columns = self.encoder.map(pictures[:1]).shape[2:]
        return cosine_maps(self.embed_pictures(pictures).unflatten(2, (rows, columns)), self.embed_sounds(sounds))

    def choices(self, images: int) -> Choices:
        return Choices(images, "clips of the batch")


@full_precision
def nearness(pictures: Tensor, sounds: Tensor, over: Over, temperature: float) -> Tensor:
    """How near each picture is to each sound, `(n, m)`: `over_cells` of the cosine similarities of normalised
    embeddings `(n, dim, cells)` and `(m, dim)`."""
    return over_cells(torch.einsum("ndk,md->nmk", pictures, sounds), over, temperature)


def over_cells(similarity: Tensor, over: Over, temperature: float) -> Tensor:
    """What counts of similarities `(…, cells)`, `(…)`: the largest, the mean, or what lies between, `softmax`: the log
    of the mean of exp(similarity / temperature), times the temperature."""
    if over == "max":
        return similarity.amax(dim=-1)
    if over == "mean":
        return similarity.mean(dim=-1)
    return temperature * ((similarity / temperature).logsumexp(dim=-1) - math.log(similarity.shape[-1]))


def others_of(sources: Tensor) -> Tensor:
    """Which pairs of clips are two of one source, bool `(n, n)`; none is with itself."""
    return (sources[:, None] == sources).fill_diagonal_(False)
