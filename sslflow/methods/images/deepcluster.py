"""DeepCluster: learn to tell in which cluster of its own features an image lies (arXiv:1807.05520)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslflow.clustering.confidence import confidence as confidence_of
from sslflow.clustering.kmeans import Clustering, TooFewPointsError, assign, kmeans
from sslflow.networks.encoder import Encoder
from sslflow.runtime.distributed import all_reduce_sum
from sslflow.settings.params import Below, Count
from sslflow.training.method import Batch, Choices, Losses, Method, Pool
from sslflow.training.pictures import typical
from sslflow.views.images import TwoViews

SHARPNESS = 6.0
"""Largest score, about, that the classifier gives to a cluster before it has learnt anything."""
LEFT_OUT = -1
"""In place of a cluster."""


class DeepCluster(Method):
    """Between epochs K-means clusters the features of all images, and in an epoch a classifier learns which image is in
    which cluster. Clusters are found without augmentation and told with it.

    With every clustering the paper draws the classifier anew, by chance. Here it starts from the centroids: an epoch of
    a small data set has too few steps to find them again.

    Settings: `clusters`, how many; `directions`, the most of a PCA that K-means sees, with equal variance; `every`,
    epochs from one clustering to the next; `confidence`: images that are less sure of their cluster (`confidence` in
    sslflow/clustering) are left out until the next clustering, 0: none. Raises `ValueError` where all would be.
    """

    Views = TwoViews
    additive = True

    assignments: Tensor
    """Cluster of each image, int64 `(images,)`; LEFT_OUT of those that are not learnt from."""
    epochs: Tensor
    nmi: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        clusters: Count = 10_000,
        directions: Count = 256,
        every: Count = 1,
        confidence: Below = 0.0,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.norm, self.classifier = nn.BatchNorm1d(encoder.dim, affine=False), nn.Linear(encoder.dim, clusters)
        self.directions, self.every, self.confidence = directions, every, confidence
        self.register_buffer("assignments", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("epochs", torch.tensor(0))
        self.register_buffer("nmi", torch.tensor(0.0))
        self.register_load_state_dict_pre_hook(_make_room)

    @torch.no_grad()
    def start_epoch(self, pool: Pool) -> list[nn.Parameter]:
        due = int(self.epochs) % self.every == 0
        self.epochs += 1
        if not due:
            return []
        features = pool.features()
        mean, covariance = moments(features)
        directions = whitening(covariance, self.directions).float()
        points = (features - mean.float()) @ directions
        centroids = cluster(points, self.classifier.out_features, pool.seed).centroids
        found = torch.zeros(pool.size, dtype=torch.int64, device=features.device)
        nearest, distance, margin = assign(points, centroids)
        sure = confidence_of(distance, margin)
        found[pool.mine] = nearest.where(sure >= self.confidence, LEFT_OUT)
        all_reduce_sum(found)
        kept = found >= 0
        if not kept.any():
            raise ValueError(
                f"methods.deepcluster.confidence: {self.confidence:g} leaves out all images, whose confidence is "
                f"{float(sure.mean()):.3f} on average; take less, or 0 for all images"
            )
        if len(self.assignments) and (both := kept & (self.assignments >= 0)).any():
            self.nmi = mutual_information(self.assignments[both], found[both])
        self.assignments = found

        # The score of a cluster is the product of the image's point and the centroid, in terms of normalised features.
        towards = (centroids @ directions.T) * covariance.diagonal().clamp_min(0).sqrt() / directions.shape[1] ** 0.5
        self.classifier.bias.zero_()
        self.classifier.weight.zero_()[: len(centroids)] = SHARPNESS * towards
        return list(self.classifier.parameters())

    def order(self, size: int, numbers: torch.Generator) -> Tensor:
        """As many images of each cluster, drawn so that images of one are seen equally often: else a classifier that
        knows the largest cluster only would do well."""
        shuffled = torch.randperm(size, generator=numbers)
        shuffled = shuffled[self.assignments.cpu()[shuffled] >= 0]
        clusters = self.assignments.cpu()[shuffled]
        counts = clusters.bincount()
        starts, filled = counts.cumsum(0) - counts, counts.nonzero()[:, 0]
        turn = torch.arange(size)
        chosen = filled[turn % len(filled)]
        within = turn // len(filled) % counts[chosen]
        by_cluster = shuffled[clusters.argsort(stable=True)]
        return by_cluster[starts[chosen] + within][torch.randperm(size, generator=numbers)]

    def training_step(self, batch: Batch) -> Losses:
        logits = self.scores(torch.cat(batch.views))
        clusters = self.assignments[batch.rows].repeat(len(batch.views))
        accuracy = (logits.argmax(dim=1) == clusters).float().mean()
        # Clusters are seen equally often, but those that K-means left empty never.
        there = self.assignments[self.assignments >= 0]
        filled = torch.zeros(logits.shape[1], device=logits.device).index_fill_(0, there, 1.0).sum()
        return {
            "loss": F.cross_entropy(logits, clusters),
            "accuracy": accuracy,
            "nmi": self.nmi,
            "chance_loss": filled.log(),
            "chance_accuracy": 1 / filled,
        }

    def scores(self, images: Tensor) -> Tensor:
        """Logits of the clusters, `(n, clusters)`."""
        return self.classifier(self.norm(self.encoder(images))).float()

    def choices(self, images: int) -> Choices:
        return Choices(self.classifier.out_features, "clusters")

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """A row for each of a few clusters: the images that the classifier is surest of."""
        return typical(batch.views[0], self.scores(batch.views[0]).softmax(dim=1))


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean `(dim,)` and covariance `(dim, dim)`, float64, of features `(n, dim)`, over the rows of all processes."""
    width = features.shape[1] + 1
    table = torch.zeros(width, width, dtype=torch.float64, device=features.device)
    for chunk in features.split(4096):
        with_one = F.pad(chunk.double(), (0, 1), value=1.0)
        table += with_one.T @ with_one
    all_reduce_sum(table)
    table /= table[-1, -1].clone()
    mean = table[-1, :-1]
    return mean, table[:-1, :-1] - mean.outer(mean)


def whitening(covariance: Tensor, most: int) -> Tensor:
    """Directions `(dim, kept)` along which features of that covariance, `(dim, dim)`, have variance 1 and no
    correlation: the `most` with the largest variance, less those with hardly any."""
    variances, directions = torch.linalg.eigh(covariance)  # in rising order
    variances, directions = variances[-most:].clamp_min(1e-12), directions[:, -most:]
    kept = variances >= 1e-6 * variances[-1]
    return directions[:, kept] / variances[kept].sqrt()


def cluster(points: Tensor, clusters: int, seed: int) -> Clustering:
    """K-means by cosine; with as many clusters as there are different points where more are asked for."""
    while True:
        try:
            return kmeans(points, seed, clusters=clusters, restarts=1, iterations=20)
        except TooFewPointsError as few:
            clusters = few.distinct


def mutual_information(a: Tensor, b: Tensor) -> Tensor:
    """How much a clustering tells of another, both int64 `(n,)`: scalar, from 0 to 1 for the same clusters under any
    numbers (normalised by the mean of the entropies)."""

    def entropy(numbers: Tensor) -> Tensor:
        share = numbers.unique(return_counts=True)[1] / len(numbers)
        return -(share * share.log()).sum()

    alone = entropy(a) + entropy(b)
    return 2 * (alone - entropy(a * (b.max() + 1) + b)) / alone.clamp_min(1e-12)


def _make_room(method: Any, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """How many images a run has, only its state tells."""
    method.assignments = torch.zeros_like(state[prefix + "assignments"], device=method.assignments.device)
