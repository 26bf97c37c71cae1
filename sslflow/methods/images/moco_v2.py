"""MoCo v2: find an image's other view among a queue of earlier images (arXiv:1911.05722, arXiv:2003.04297)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslflow.networks.encoder import Encoder
from sslflow.networks.heads import mlp
from sslflow.networks.teacher import Teacher
from sslflow.runtime.device import full_precision
from sslflow.runtime.distributed import gather
from sslflow.settings.params import Count, Fraction, Positive, Widths
from sslflow.training.method import Batch, Choices, Losses, Method
from sslflow.views.images import TwoViews

EMPTY = -1


class MoCoV2(Method):
    """Settings: `projector`, widths of the head's layers; `queue`, how many keys of earlier steps stand against the
    right one; `temperature`, by which cosine similarities are divided; `momentum`, what the teacher keeps of itself in
    a step.

    BatchNorm would tell queries which keys came from their own batch, and the paper shuffles images between GPUs
    against that. Here the teacher normalises by statistics of earlier batches, which takes no second GPU.
    """

    Views = TwoViews

    queue: Tensor
    """Keys, `(queue, dim)`, of length 1; the same in all processes."""
    queue_rows: Tensor
    """Which of the run's images they are, int64 `(queue,)`."""
    oldest: Tensor
    """The place in the queue that is filled next, int64 scalar."""

    def __init__(
        self,
        encoder: Encoder,
        *,
        projector: Widths = (2048, 128),
        queue: Count = 65536,
        temperature: Positive = 0.2,
        momentum: Fraction = 0.999,
    ) -> None:
        super().__init__()
        widths = (encoder.dim, *projector)
        self.encoder, self.projector = encoder, mlp(*widths)
        self.teacher = Teacher(nn.Sequential(encoder, self.projector), batch_statistics=False)
        self.temperature, self.momentum = temperature, momentum
        self.register_buffer("queue", torch.zeros(queue, widths[-1]))
        self.register_buffer("queue_rows", torch.full((queue,), EMPTY))
        self.register_buffer("oldest", torch.zeros((), dtype=torch.int64))

    def training_step(self, batch: Batch) -> Losses:
        view, other = batch.views
        queries = self.projector(self.encoder(view))
        keys = F.normalize(self.teacher(other).float(), dim=1)
        all_keys, all_rows = gather(keys), gather(batch.rows)
        self._fill(all_keys, all_rows)
        # With fewer images than places, earlier keys of the same image are in the queue: no negatives.
        same = batch.rows[:, None] == self.queue_rows
        loss = info_nce(queries, keys, self.queue, same, self.temperature)
        self._enqueue(all_keys, all_rows)
        return {"loss": loss}

    def after_step(self, progress: float) -> None:
        self.teacher.follow(nn.Sequential(self.encoder, self.projector), self.momentum)

    def choices(self, images: int) -> Choices:
        return Choices(len(self.queue) + 1, "keys of earlier images")

    def _fill(self, keys: Tensor, rows: Tensor) -> None:
        """Repeat the first step's keys until no place is empty: so the loss means the same from the first step on."""
        empty = self.queue_rows == EMPTY
        repeated = torch.arange(len(self.queue), device=keys.device) % len(keys)
        self.queue = torch.where(empty[:, None], keys[repeated], self.queue)
        self.queue_rows = torch.where(empty, rows[repeated], self.queue_rows)

    def _enqueue(self, keys: Tensor, rows: Tensor) -> None:
        """Put keys in place of the oldest, from the start again where the end is reached."""
        keys, rows = keys[-len(self.queue) :], rows[-len(self.queue) :]
        places = (self.oldest + torch.arange(len(keys), device=keys.device)) % len(self.queue)
        # Copies: the backward pass still needs the queue as the loss saw it.
        self.queue = self.queue.index_copy(0, places, keys)
        self.queue_rows = self.queue_rows.index_copy(0, places, rows)
        self.oldest = (self.oldest + len(keys)) % len(self.queue)


@full_precision
def info_nce(queries: Tensor, keys: Tensor, negatives: Tensor, ignored: Tensor, temperature: float) -> Tensor:
    """Cross entropy of picking `keys[i]` for `queries[i]`, both `(n, dim)`, from it and `negatives` `(k, dim)`, by
    cosine similarity over the temperature: scalar, a mean over the queries; at random it is about ln(k + 1).

    Keys and negatives have length 1. Where `ignored` `(n, k)` is true, a negative does not stand against a query.
    """
    queries = F.normalize(queries, dim=1)
    right = (queries * keys).sum(dim=1, keepdim=True)
    wrong = (queries @ negatives.T).masked_fill(ignored, -torch.inf)
    logits = torch.cat([right, wrong], dim=1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64, device=logits.device))
