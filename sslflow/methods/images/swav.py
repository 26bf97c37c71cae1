"""SwAV: tell from a crop to which prototype another crop of the image belongs (arXiv:2006.09882)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslflow.networks.answers import sinkhorn
from sslflow.networks.crops import forward_crops, swapped_cross_entropy
from sslflow.networks.encoder import Encoder
from sslflow.networks.heads import Prototypes, mlp
from sslflow.runtime.distributed import gather, rank
from sslflow.settings.params import Count, Natural, Positive, Widths
from sslflow.training.method import Batch, Choices, Losses, Method
from sslflow.training.pictures import typical
from sslflow.views.images import MultiCrop


class SwAV(Method):
    """The two global crops get codes: shares in the prototypes, balanced so that all prototypes are used alike. Every
    crop predicts the codes of the others.

    Settings: `projector`, widths of the head's layers; `prototypes`, how many; `temperature` of the predictions;
    `epsilon`, the softness of the codes, and `iterations`, rounds of balancing; `queue`, projections of earlier steps
    that the codes of a small batch are balanced with, from the time when there are so many.
    """

    Views = MultiCrop
    moving_targets = True

    queue: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        projector: Widths = (2048, 128),
        prototypes: Count = 3000,
        temperature: Positive = 0.1,
        epsilon: Positive = 0.05,
        iterations: Count = 3,
        queue: Natural = 0,
    ) -> None:
        super().__init__()
        self.encoder, self.projector = encoder, mlp(encoder.dim, *projector)
        self.prototypes = Prototypes(projector[-1], prototypes)
        self.temperature, self.epsilon, self.iterations = temperature, epsilon, iterations
        self.register_buffer("queue", torch.zeros(2, queue, projector[-1]))

    def training_step(self, batch: Batch) -> Losses:
        z = forward_crops(nn.Sequential(self.encoder, self.projector), batch.views)
        scores = self.prototypes(z.flatten(0, 1)).unflatten(0, z.shape[:2])
        codes = self.codes(z[:2])
        loss = swapped_cross_entropy(codes, scores / self.temperature)
        return {"loss": loss, "code_entropy": -torch.special.xlogy(codes, codes).sum(dim=2).mean()}

    @torch.no_grad()
    def codes(self, z: Tensor) -> Tensor:
        """Codes `(2, n, prototypes)` of this process's projections `(2, n, dim)`, balanced over the rows of all
        processes and of the queue, into which the projections then move."""
        every = torch.stack([gather(crop) for crop in z.float()])
        with_earlier = torch.cat([every, self.queue], dim=1)
        # Until it is full, the last rows of the queue are empty.
        rows = with_earlier if self.queue.shape[1] and self.queue[:, -1].any() else every
        own = slice(rank() * z.shape[1], (rank() + 1) * z.shape[1])
        codes = [sinkhorn(self.prototypes(crop), self.epsilon, self.iterations)[own] for crop in rows]
        self.queue.copy_(with_earlier[:, : self.queue.shape[1]])
        return torch.stack(codes)

    def choices(self, images: int) -> Choices:
        return Choices(len(self.prototypes.weight), "prototypes")

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """A row for each of a few prototypes: the images most like it."""
        return typical(batch.views[0], self.prototypes(self.projector(self.encoder(batch.views[0]))))
