"""L3-Net: do this frame and this second of sound come from the same event (arXiv:1705.08168)?"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sslflow.audiovisual.maps import without_each_cell
from sslflow.audiovisual.method import PairMethod
from sslflow.audiovisual.views import ClipWindowViews, partners
from sslflow.data.fields import Fields
from sslflow.networks.encoder import Encoder
from sslflow.networks.heads import mlp
from sslflow.runtime.device import full_precision
from sslflow.runtime.distributed import gather, rank
from sslflow.settings.params import Count
from sslflow.training.method import Batch, Choices, Losses

OTHERS = 8
"""Wrong pairs that each frame and each sound is in. Nearly all of a step's time goes into encoding them once."""


class CorrespondenceViews(ClipWindowViews):
    """Frames, the sounds of the same windows, and for each clip the numbers, within the process's part of the batch, of
    those whose sounds it is also shown with, int64 `(n, OTHERS)`; −1 where a clip is left out.

    Each frame is shown with its own sound and, in every column, once with another's, and each sound likewise: neither a
    frame nor a sound nor its time can tell alone which of the two a pair is. The other sound is of another source: from
    elsewhere in the same video it would often fit as well.
    """

    numbers_batch = (2,)

    def of_windows(self, fields: Fields, starts: Tensor) -> tuple[Tensor, ...]:
        return self.pictures(fields, starts), self.sounds(fields, starts), partners(fields["groups"], OTHERS)


class Correspondence(PairMethod):
    """Two encoders, and a small network that sees the features of both.

    Settings: `hidden`, width of that network.
    """

    Views = CorrespondenceViews
    threshold = 0.0

    def __init__(self, encoder: Encoder, sound_encoder: Encoder, *, hidden: Count = 128) -> None:
        super().__init__()
        self.encoder, self.sound_encoder = encoder, sound_encoder
        self.fusion = mlp(encoder.map_dim + sound_encoder.dim, hidden, 1)

    def training_step(self, batch: Batch) -> Losses:
        frames, sounds, others = batch.views
        pictures, heard = gather(self.embed_pictures(frames)), gather(self.embed_sounds(sounds))
        # Each process numbers the clips of its own part of the batch.
        others = gather(torch.where(others >= 0, others + rank() * len(others), others))
        clips, column = (others >= 0).nonzero(as_tuple=True)
        if not len(clips):
            # Clips of one source: there is no wrong pair, and the right ones alone teach only to say yes.
            nothing = 0.0 * self.scores(pictures, heard).sum()
            return {"loss": nothing, "accuracy": nothing.detach() + 0.5}
        # In one go: the network's BatchNorm must not see right and wrong pairs apart.
        wrong = pictures[clips], heard[others[clips, column]]
        logits = self.scores(torch.cat([pictures, wrong[0]]), torch.cat([heard, wrong[1]]))
        own, other = logits[: len(pictures)][clips], logits[len(pictures) :]
        accuracy = torch.stack([own > 0, other <= 0]).float().mean()
        return {"loss": correspondence_loss(own, other), "accuracy": accuracy}

    def embed_pictures(self, pictures: Tensor) -> Tensor:
        return self.encoder.map(pictures).mean(dim=(2, 3))

    def embed_sounds(self, sounds: Tensor) -> Tensor:
        return self.sound_encoder(sounds)

    def scores(self, pictures: Tensor, sounds: Tensor) -> Tensor:
        return self.fusion(torch.cat([pictures, sounds], dim=1))[:, 0].float()

    def localise(self, pictures: Tensor, sounds: Tensor) -> Tensor:
        """By how much the score falls when a cell of the map is left out of the mean."""
        maps = self.encoder.map(pictures)
        return without_each_cell(maps, lambda means: self.scores(means, _for_each(self.embed_sounds(sounds), means)))

    def choices(self, images: int) -> Choices:
        return Choices(2, "same event or not")


@full_precision
def correspondence_loss(own: Tensor, other: Tensor) -> Tensor:
    """Cross entropy of yes for the logits `own` `(n,)`, of pairs that belong together, and of no for `other`, as many:
    scalar, the mean over all; ln 2 at random."""
    return (F.softplus(-own).mean() + F.softplus(other).mean()) / 2


def _for_each(sounds: Tensor, means: Tensor) -> Tensor:
    """Sounds `(n, dim)` repeated so that each stands beside all of its picture's rows of `means` `(n * k, …)`."""
    return sounds.repeat_interleave(len(means) // len(sounds), dim=0)
