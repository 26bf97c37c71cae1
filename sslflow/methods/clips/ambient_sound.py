"""Ambient sound: tell from a frame alone what kind of sound goes with it (Owens et al., arXiv:1608.07017)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslflow.audiovisual.method import OwnTask
from sslflow.audiovisual.spectrogram import sound_statistics
from sslflow.audiovisual.views import ClipWindowViews
from sslflow.clustering.kmeans import TooFewPointsError, assign, kmeans
from sslflow.data.fields import Fields
from sslflow.networks.encoder import Encoder
from sslflow.runtime.distributed import all_reduce_sum
from sslflow.settings.params import Count
from sslflow.training.method import Batch, Choices, Losses, Pool, chance_level


class AmbientViews(ClipWindowViews):
    """A frame of each clip and the `sound_statistics` of all of the clip's sound, which the frame does not see."""

    def of_windows(self, fields: Fields, starts: Tensor) -> tuple[Tensor, ...]:
        return self.pictures(fields, starts), sound_statistics(self.log_mel(fields["sound"]))


class AmbientSound(OwnTask):
    """Before the first epoch K-means sorts the sounds of all clips by what they are like, and a classifier of frames
    learns in which cluster a frame's sound is. The clusters stay: they come from sound alone, and no weights.

    `statistics` are the `sound_statistics` of all clips of the run, `(clips, width)`.

    Settings: `clusters`, how many; where the clips have fewer different sounds, as many as those.
    """

    Views = AmbientViews
    additive = True

    mean: Tensor
    scale: Tensor
    centroids: Tensor
    used: Tensor
    shares: Tensor

    def __init__(self, encoder: Encoder, statistics: Tensor, *, clusters: Count = 30) -> None:
        super().__init__()
        self.encoder, self.classifier = encoder, nn.Linear(encoder.dim, clusters)
        self.statistics = statistics
        width = statistics.shape[1]
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.register_buffer("centroids", torch.zeros(clusters, width))
        self.register_buffer("used", torch.tensor(0))
        self.register_buffer("shares", torch.zeros(clusters))

    @torch.no_grad()
    def start_epoch(self, pool: Pool) -> list[nn.Parameter]:
        if int(self.used):
            return []
        statistics = self.statistics.to(self.mean.device)
        self.mean.copy_(statistics.mean(dim=0))
        scale = statistics.std(dim=0, correction=0)
        # What is the same in all clips tells nothing, and must not be blown up.
        self.scale.copy_(torch.where(scale > 1e-3 * scale.max().clamp_min(1e-12), scale, torch.inf))
        points = self.points(statistics[pool.mine])
        found = cluster(points, len(self.centroids), pool.seed)
        self.centroids[: len(found)] = found
        self.used.fill_(len(found))
        counts = assign(points, found, "euclidean")[0].bincount(minlength=len(self.shares))
        self.shares.copy_(all_reduce_sum(counts) / pool.size)
        return []

    def training_step(self, batch: Batch) -> Losses:
        logits, clusters, _ = self.answers(batch)
        accuracy = (logits.argmax(dim=1) == clusters).float().mean()
        return {"loss": F.cross_entropy(logits, clusters), "accuracy": accuracy, **chance_level(clusters, self.shares)}

    def answers(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        frames, statistics = batch.views
        clusters = assign(self.points(statistics), self.centroids[: int(self.used)], "euclidean")[0]
        logits = self.classifier(self.encoder(frames)).float()
        return logits, clusters, torch.arange(len(frames), device=frames.device)

    def points(self, statistics: Tensor) -> Tensor:
        """Statistics as points to cluster: each with the same say."""
        return (statistics - self.mean) / self.scale

    def choices(self, images: int) -> Choices:
        return Choices(int(self.used) or len(self.centroids), "kinds of sound")


def cluster(points: Tensor, clusters: int, seed: int) -> Tensor:
    """Centroids by K-means, `(clusters, dim)`, or as many as there are different points where that is fewer."""
    while True:
        try:
            return kmeans(points, seed, clusters=clusters, metric="euclidean").centroids
        except TooFewPointsError as few:
            clusters = few.distinct
