"""DenseCL: find an image's other view, and for each of its places the one most like it there (arXiv:2011.09157)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslflow.networks.encoder import Encoder
from sslflow.networks.heads import mlp
from sslflow.networks.queue import Queue, info_nce
from sslflow.networks.teacher import Teacher
from sslflow.runtime.device import full_precision
from sslflow.runtime.distributed import gather
from sslflow.settings.params import Count, Fraction, Positive, Widths
from sslflow.training.method import Batch, Choices, Losses, Method
from sslflow.views.images import TwoViews


class Places(nn.Module):
    """An encoder with a head for its features and one for each place of its map."""

    def __init__(self, encoder: Encoder, projector: nn.Module, dense: nn.Module) -> None:
        super().__init__()
        self.encoder, self.projector, self.dense = encoder, projector, dense

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Projections of the features, `(n, dim)`, and of each place, `(n, places, dim)`; and the map that the latter
        are made of, `(n, places, map_dim)`."""
        features, last = self.encoder.features_and_map(images)
        places = last.flatten(2).transpose(1, 2)
        return self.projector(features), self.dense(places), places


class DenseCL(Method):
    """Settings: `projector`, widths of the layers of both heads; that of places has no BatchNorm; `dense`, the share of
    the loss that is about places; `queue`, how many keys of earlier steps stand against the right one; `temperature`,
    by which cosine similarities are divided; `momentum`, what the teacher keeps of itself in a step."""

    Views = TwoViews

    def __init__(
        self,
        encoder: Encoder,
        *,
        projector: Widths = (2048, 128),
        dense: Fraction = 0.5,
        queue: Count = 65536,
        temperature: Positive = 0.2,
        momentum: Fraction = 0.999,
    ) -> None:
        super().__init__()
        self.encoder, self.projector = encoder, mlp(encoder.dim, *projector)
        self.place_projector = mlp(encoder.map_dim, *projector, norm=False)
        self.teacher = Teacher(self.student, batch_statistics=False)
        self.queue, self.place_queue = Queue(queue, projector[-1]), Queue(queue, projector[-1])
        self.dense, self.temperature, self.momentum = dense, temperature, momentum

    @property
    def student(self) -> Places:
        """What the teacher follows."""
        return Places(self.encoder, self.projector, self.place_projector)

    def training_step(self, batch: Batch) -> Losses:
        view, other = batch.views
        queries, places, seen = self.student(view)
        keys, place_keys, taught = self.teacher(other)
        keys, place_keys = F.normalize(keys.float(), dim=1), F.normalize(place_keys.float(), dim=2)
        rows = gather(batch.rows)
        whole, parts = gather(keys), gather(F.normalize(place_keys.mean(dim=1), dim=1))
        self.queue.fill(whole, rows)
        self.place_queue.fill(parts, rows)
        same = batch.rows[:, None] == self.queue.rows
        of_images = info_nce(queries, keys, self.queue.vectors, same, self.temperature)
        right = partners(seen, taught, place_keys)
        of_places = info_nce(
            places.flatten(0, 1), right.flatten(0, 1), self.place_queue.vectors,
            same.repeat_interleave(places.shape[1], dim=0), self.temperature,
        )  # fmt: skip
        self.queue.put(whole, rows)
        self.place_queue.put(parts, rows)
        loss = (1 - self.dense) * of_images + self.dense * of_places
        return {"loss": loss, "images": of_images, "places": of_places}

    def after_step(self, progress: float) -> None:
        self.teacher.follow(self.student, self.momentum)

    def choices(self, images: int) -> Choices:
        return Choices(len(self.queue) + 1, "keys of earlier images")


@torch.no_grad()
@full_precision
def partners(seen: Tensor, taught: Tensor, keys: Tensor) -> Tensor:
    """For each place of `seen`, `(n, places, c)`, the key, `(n, places, dim)`, of that place of `taught`, like `seen`,
    which is most like it by cosine similarity: `(n, places, dim)`."""
    alike = F.normalize(seen, dim=2) @ F.normalize(taught, dim=2).mT
    chosen = alike.argmax(dim=2)[..., None]
    return keys.gather(1, chosen.expand(-1, -1, keys.shape[2]))
