"""NNCLR: agree with another image's view, the nearest among earlier images (arXiv:2104.14548)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sslflow.networks.encoder import Encoder
from sslflow.networks.heads import mlp
from sslflow.networks.queue import Queue
from sslflow.runtime.device import full_precision
from sslflow.runtime.distributed import gather
from sslflow.settings.params import Count, Positive, Widths
from sslflow.training.method import Batch, Choices, Losses, Method
from sslflow.views.images import TwoViews


class NNCLR(Method):
    """Settings: `projector`, widths of the head's layers, a BatchNorm after the last; `predictor`, width of the
    predictor's hidden layer; `queue`, how many projections of earlier steps the nearest is looked for in;
    `temperature`, by which cosine similarities are divided."""

    Views = TwoViews

    def __init__(
        self,
        encoder: Encoder,
        *,
        projector: Widths = (2048, 2048, 256),
        predictor: Count = 4096,
        queue: Count = 98304,
        temperature: Positive = 0.1,
    ) -> None:
        super().__init__()
        widths = (encoder.dim, *projector)
        self.encoder, self.projector = encoder, mlp(*widths, last_norm=True)
        self.predictor = mlp(widths[-1], predictor, widths[-1])
        self.queue, self.temperature = Queue(queue, widths[-1]), temperature

    def training_step(self, batch: Batch) -> Losses:
        projected = [self.projector(self.encoder(view)) for view in batch.views]
        pa, pb = (gather(self.predictor(z)) for z in projected)
        za, zb = (gather(F.normalize(z.detach().float(), dim=1)) for z in projected)
        rows = gather(batch.rows)
        self.queue.fill(za, rows)
        na, nb = (nearest(z, rows, self.queue.vectors, self.queue.rows) for z in (za, zb))
        loss = (neighbour_nce(na, pb, self.temperature) + neighbour_nce(nb, pa, self.temperature)) / 2
        self.queue.put(za, rows)
        return {"loss": loss}

    def choices(self, images: int) -> Choices:
        return Choices(images, "images of the batch")


def nearest(vectors: Tensor, rows: Tensor, earlier: Tensor, earlier_rows: Tensor) -> Tensor:
    """For each vector `(n, dim)` the one of the earlier `(k, dim)` that is most like it, `(n, dim)`; all are of length
    1. One of the same image, as rows tell, is taken where there is no other only."""
    same = rows[:, None] == earlier_rows
    return earlier[(vectors @ earlier.T - 4.0 * same).argmax(dim=1)]


@full_precision
def neighbour_nce(neighbours: Tensor, predictions: Tensor, temperature: float) -> Tensor:
    """Cross entropy of picking `predictions[i]`, `(n, dim)`, for `neighbours[i]`, `(n, dim)`, by cosine similarity over
    the temperature: scalar, a mean over the images; at random it is about ln n."""
    logits = F.normalize(neighbours, dim=1) @ F.normalize(predictions, dim=1).T / temperature
    return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))
