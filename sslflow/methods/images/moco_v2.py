"""MoCo v2: find an image's other view among a queue of earlier images (arXiv:1911.05722, arXiv:2003.04297)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import nn

from sslflow.networks.encoder import Encoder
from sslflow.networks.heads import mlp
from sslflow.networks.queue import Queue, info_nce
from sslflow.networks.teacher import Teacher
from sslflow.runtime.distributed import gather
from sslflow.settings.params import Count, Fraction, Positive, Widths
from sslflow.training.method import Batch, Choices, Losses, Method
from sslflow.views.images import TwoViews


class MoCoV2(Method):
    """Settings: `projector`, widths of the head's layers; `queue`, how many keys of earlier steps stand against the
    right one; `temperature`, by which cosine similarities are divided; `momentum`, what the teacher keeps of itself in
    a step.

    BatchNorm would tell queries which keys came from their own batch, and the paper shuffles images between GPUs
    against that. Here the teacher normalises by statistics of earlier batches, which takes no second GPU.
    """

    Views = TwoViews

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
        self.queue = Queue(queue, widths[-1])

    def training_step(self, batch: Batch) -> Losses:
        view, other = batch.views
        queries = self.projector(self.encoder(view))
        keys = F.normalize(self.teacher(other).float(), dim=1)
        all_keys, all_rows = gather(keys), gather(batch.rows)
        self.queue.fill(all_keys, all_rows)
        # With fewer images than places, earlier keys of the same image are in the queue: no negatives.
        same = batch.rows[:, None] == self.queue.rows
        loss = info_nce(queries, keys, self.queue.vectors, same, self.temperature)
        self.queue.put(all_keys, all_rows)
        return {"loss": loss}

    def after_step(self, progress: float) -> None:
        self.teacher.follow(nn.Sequential(self.encoder, self.projector), self.momentum)

    def choices(self, images: int) -> Choices:
        return Choices(len(self.queue) + 1, "keys of earlier images")
