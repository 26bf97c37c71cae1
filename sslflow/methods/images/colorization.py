"""Colorization: tell the colours of an image from its lightness (arXiv:1603.08511)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from sslflow.data.fields import Fields
from sslflow.data.formats import ImageFormat
from sslflow.networks.decoder import Decoder
from sslflow.networks.encoder import Encoder
from sslflow.runtime.distributed import all_reduce_sum, world_size
from sslflow.settings.params import Count, Fraction
from sslflow.training.method import Batch, Choices, Losses, Method
from sslflow.views.images import CropView, lab, rgb_from_lab
from sslflow.views.strengths import Share

STEP = 10
"""From one bin to the next, in a and b."""
SHARED, SPREAD = 5, 5.0
"""A colour is shared out among so many bins, by a Gaussian of this deviation."""
TEMPERATURE = 0.38
"""At which bins are averaged for a picture: 1 gives the mean, which is dull, 0 the likeliest, which is spotted."""
UNIT = 25.0
"""Of a and b where they are told as numbers: a usual distance from grey."""


class GreyViews(CropView):
    """The image without its colours, normalised as a grey image is; the image in Lab `(n, 3, s, s)`; and what black and
    white are when normalised, `(n, 2, 3, 1, 1)`, for pictures."""

    def __init__(self, format: ImageFormat, *, shift: Fraction = 0.1, flip: Fraction = 0.5) -> None:
        """`shift` and `flip` as for `CropView`. Raises `ValueError` for images without colours."""
        if format.channels != 3:
            raise ValueError("colorization needs colour images: set data.channels to 3")
        super().__init__(format, shift=shift, flip=flip)

    @torch.no_grad()
    def forward(self, fields: Fields) -> tuple[Tensor, ...]:
        colours = lab(self.moved(fields["images"]).float() / 255)
        grey = rgb_from_lab(colours * colours.new_tensor([1, 0, 0]).view(3, 1, 1))
        ends = self.normalise(colours.new_tensor([0, 255]).view(2, 1, 1, 1))
        return self.normalise(255 * grey), colours, ends.expand(len(fields), *ends.shape)

    def shown(self, views: tuple[Tensor, ...]) -> list[Tensor]:
        """The grey image, as the encoder sees it."""
        return super().shown(views[:1])


class Colorization(Method):
    """Settings: `loss`, which of many bins a colour is in, or its a and b as numbers; `side` of the map of colours, as
    a share of the image's; `decoder`, the width of its first layers; `uniform`, how much the weights of rare colours
    are held back (0: every colour counts the same, however rare; 1: every pixel)."""

    Views = GreyViews

    bins: Tensor
    seen: Tensor
    answers: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        loss: Literal["classification", "regression"] = "classification",
        side: Share = 0.25,
        decoder: Count = 128,
        uniform: Fraction = 0.5,
    ) -> None:
        super().__init__()
        self.encoder, self.side = encoder, max(1, round(side * encoder.image_size))
        self.classifies, self.uniform = loss == "classification", uniform
        self.register_buffer("bins", gamut())
        # How often each colour was seen: summed up as the run goes on, so that no pass over the images comes first.
        self.register_buffer("seen", torch.zeros(len(self.bins)))
        answers = len(self.bins) if self.classifies else 2
        self.decoder = Decoder(encoder.map_dim, answers, self.side, width=decoder)
        # The steps' mean answers, summed up likewise, and their number: for the best constant answer.
        self.register_buffer("answers", torch.zeros(answers + 1))

    def training_step(self, batch: Batch) -> Losses:
        grey, colours, _ = batch.views
        told = self.decoder(self.encoder.map(grey)).float()
        true = F.adaptive_avg_pool2d(colours[:, 1:], self.side)
        if not self.classifies:
            true = true / UNIT
            usual = self._usual(true.mean(dim=(0, 2, 3)))
            return {"loss": F.mse_loss(told, true), "chance_loss": (true - usual[:, None, None]).square().mean()}
        nearest, shares = shared_out(true, self.bins)
        self.seen += all_reduce_sum(frequencies(nearest, shares, len(self.bins))) / world_size()
        weights = rarity(self.seen, self.uniform)
        weighted = shares * (shares * weights[nearest]).sum(dim=1, keepdim=True)
        usual = self._usual(frequencies(nearest, weighted, len(self.bins)))
        return {
            "loss": colour_cross_entropy(told, nearest, shares, weights),
            "accuracy": (told.argmax(dim=1) == nearest[:, 0]).float().mean(),
            "chance_loss": -(weighted * usual.clamp_min(1e-30).log()[nearest]).sum(dim=1).mean(),
        }

    def _usual(self, answer: Tensor) -> Tensor:
        """The mean, over the steps so far and all processes, of a step's mean answer `(k,)`."""
        self.answers += all_reduce_sum(F.pad(answer, (0, 1), value=1.0))
        return self.answers[:-1] / self.answers[-1]

    def choices(self, images: int) -> Choices | None:
        return Choices(len(self.bins), "colours") if self.classifies else None

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """Lightness as it is, with the colours told, and with the true ones."""
        grey, colours, ends = batch.views
        told = self.decoder(self.encoder.map(grey)).float()
        ab = annealed_mean(told, self.bins) if self.classifies else UNIT * told
        ab = F.interpolate(ab, size=grey.shape[-2:], mode="bilinear")
        black, white = ends.unbind(dim=1)
        return {
            "shown": grey,
            "told": torch.lerp(black, white, rgb_from_lab(torch.cat([colours[:, :1], ab], dim=1))),
            "true": torch.lerp(black, white, rgb_from_lab(colours)),
        }


def gamut() -> Tensor:
    """The bins: points of a grid of a and b, those that some colour of a screen is nearest to, `(bins, 2)`."""
    levels = torch.linspace(0, 1, 52)
    cube = torch.cartesian_prod(levels, levels, levels).T.reshape(1, 3, 1, -1)
    return STEP * (lab(cube)[0, 1:, 0] / STEP).round().T.unique(dim=0)


def shared_out(colours: Tensor, bins: Tensor) -> tuple[Tensor, Tensor]:
    """The bins that colours `(n, 2, h, w)` are shared out among, nearest first, int64 `(n, 5, h, w)`, and each one's
    share; the shares of a colour sum to 1."""
    distances = torch.cdist(colours.movedim(1, -1), bins, compute_mode="donot_use_mm_for_euclid_dist")
    distance, nearest = distances.topk(SHARED, largest=False)
    shares = (-distance.square() / (2 * SPREAD**2)).softmax(dim=-1)
    return nearest.movedim(-1, 1), shares.movedim(-1, 1)


def frequencies(nearest: Tensor, shares: Tensor, bins: int) -> Tensor:
    """How much of all colours is in each bin, `(bins,)`, sum 1."""
    total = shares.new_zeros(bins)
    return total.index_add_(0, nearest.flatten(), shares.flatten()) * (SHARED / shares.numel())


def rarity(seen: Tensor, uniform: float) -> Tensor:
    """Weights of the bins, the higher the less was `seen` of them, `(bins,)` both; their mean over what was seen is 1.

    `uniform` mixes what was seen with an equal share of all bins, so that the rarest don't count for thousands.
    """
    seen = seen / seen.sum()
    weights = 1 / ((1 - uniform) * seen + uniform / len(seen)).clamp_min(1e-12)
    return weights / (seen * weights).sum()


def colour_cross_entropy(logits: Tensor, nearest: Tensor, shares: Tensor, weights: Tensor) -> Tensor:
    """Cross entropy of `logits` `(n, bins, h, w)` with colours shared out among bins, `nearest` and `shares`
    `(n, 5, h, w)`: scalar, a mean over pixels, each of them times the weight, of `(bins,)`, of its colour's bins.

    The paper takes the weight of the nearest bin alone. With that of all five the mean over what was seen is 1, and a
    uniform answer has a loss of ln `bins`.
    """
    logs = F.log_softmax(logits.float(), dim=1).gather(1, nearest)
    return -((shares * weights[nearest]).sum(dim=1) * (shares * logs).sum(dim=1)).mean()


def annealed_mean(logits: Tensor, bins: Tensor) -> Tensor:
    """Colours `(n, 2, h, w)` of logits `(n, bins, h, w)`: between the mean of the bins and the likeliest one."""
    return torch.einsum("nbhw, bc -> nchw", (logits / TEMPERATURE).softmax(dim=1), bins)
