"""Shuffle and learn: are three frames of a clip in the order in which they were seen (arXiv:1603.08561)?"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from sslflow.audiovisual.method import OwnTask
from sslflow.audiovisual.views import COLOUR, CROP, ClipViews
from sslflow.data.fields import Fields
from sslflow.data.formats import ClipFormat
from sslflow.networks.encoder import Encoder
from sslflow.networks.heads import mlp
from sslflow.runtime.distributed import gather_uneven
from sslflow.settings.params import Count, Fraction, NonNegative, Positive
from sslflow.training.method import Batch, Choices, Losses
from sslflow.views.images import CropView
from sslflow.views.strengths import Colour, Crop

RIGHT = ((0, 1, 2), (2, 1, 0))
WRONG = ((1, 0, 2), (2, 0, 1), (0, 2, 1), (1, 2, 0))
FAINT = replace(COLOUR, brightness=0.2, contrast=0.2, saturation=0.2)


class OrderViews(ClipViews):
    """Three frames of every clip, `step` seconds apart, in their order, `(n, 3, 3, side, side)`; a right and a wrong
    order of them, int64 `(n, 2, 3)`; and whether anything moves in them, bool `(n,)`.

    A film that runs backwards is as right as one that runs forwards, as in the paper: a swinging bell does both. So in
    a right order the frame in the middle is the middle one. The same three frames are shown in a right and in a wrong
    order, and each is moved, and coloured, on its own: neither a single frame, nor how its brightness or its place
    drifts from one to the next tells the order.

    Where nothing moves, no order is right: moments are drawn by how much moves, as the root mean square of the
    differences of frames, and a clip in which that is always below `least_motion`, in grey levels, is left out.
    """

    def __init__(
        self,
        format: ClipFormat,
        *,
        step: Positive = 0.2,
        least_motion: NonNegative = 2.0,
        shift: Fraction = 0.03,
        crop: Crop = CROP,
        flip: Fraction = 0.5,
        colour: Colour = FAINT,
    ) -> None:
        """`shift`: largest move of a frame against the others, as a share of its side. Raises `ValueError` for a step
        that the clips don't hold."""
        super().__init__(format, window=format.seconds, crop=crop, flip=flip, colour=colour)
        self.step = max(1, round(step * format.fps))
        if 2 * self.step >= format.frames:
            raise ValueError(
                f"three frames {step:g} s apart do not fit into clips of {format.seconds:g} s: set the step smaller"
            )
        self.least_motion = least_motion
        self.move = CropView(format.picture, shift=shift, flip=0.0).moved

    @torch.no_grad()
    def forward(self, fields: Fields) -> tuple[Tensor, ...]:
        motion = motions(fields["frames"], self.step)
        likely = torch.where(motion >= self.least_motion, motion, 0.0)
        moving = likely.sum(dim=1) > 0
        first = torch.where(moving[:, None], likely, 1.0).multinomial(1)
        rows = torch.arange(len(fields), device=first.device)[:, None]
        chosen = fields["frames"][rows, first + self.step * torch.arange(3, device=first.device)]
        frames = self.normalised(chosen)
        orders = torch.stack([_drawn(RIGHT, frames), _drawn(WRONG, frames)], dim=1)
        return frames, orders, moving

    def normalised(self, frames: Tensor) -> Tensor:
        placed = super().normalised(frames)
        return self.move(placed.flatten(0, 1)).view_as(placed) if self.training else placed


class TemporalOrder(OwnTask):
    """How far the features of any two of three frames lie apart, and a small network that sees all three distances.

    The paper's network sees the features themselves, side by side, and has to find out that they are to be compared.

    Settings: `hidden`, width of that network.
    """

    Views = OrderViews

    def __init__(self, encoder: Encoder, *, hidden: Count = 256) -> None:
        super().__init__()
        self.encoder = encoder
        self.classifier = mlp(3 * encoder.dim, hidden, 2)

    def training_step(self, batch: Batch) -> Losses:
        apart, right, _ = self._shown(batch)
        # One process may have more clips in which something moves than another.
        apart, right = gather_uneven(apart), gather_uneven(right)
        if not len(right):
            nothing = 0.0 * torch.stack([p.sum() for p in self.parameters()]).sum()
            return {"loss": nothing, "accuracy": nothing.detach() + 0.5}
        logits = self.classifier(apart).float()
        accuracy = (logits.argmax(dim=1) == right).float().mean()
        return {"loss": F.cross_entropy(logits, right), "accuracy": accuracy}

    def answers(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        apart, right, clips = self._shown(batch)
        return self.classifier(apart).float(), right, clips

    def _shown(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """What is asked: how far the frames of each order lie apart, `(m, 3 * dim)`; the right answers, and which clip
        each is about."""
        frames, orders, moving = batch.views
        orders = orders[moving]
        clips = moving.nonzero()[:, 0].repeat_interleave(2)
        right = torch.tensor([1, 0], device=clips.device).repeat(len(orders))
        # Where nothing moves the encoder sees a clip all the same: every process must take part in what they exchange.
        frames = frames[moving] if len(orders) else frames[:1]
        features = self.encoder(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        rows = torch.arange(len(orders), device=clips.device)[:, None, None]
        shown = features[rows, orders].flatten(0, 1)
        apart = (shown - shown.roll(1, dims=1)).abs()
        return apart.flatten(1), right, clips

    def choices(self, images: int) -> Choices:
        return Choices(2, "in order or not")


def motions(frames: Tensor, step: int) -> Tensor:
    """How much moves from frame i to i + step, from there to i + 2 step, and between the two outer ones, the least of
    the three: root mean square of differences, in grey levels, of frames `(n, frames, 3, side, side)`:
    `(n, frames - 2 step)`."""
    # Every second pixel: half the price, and film grain counts for no less and no more.
    grey = frames[..., ::2, ::2].float().mean(dim=2)

    def difference(apart: int) -> Tensor:
        return (grey[:, apart:] - grey[:, :-apart]).square().mean(dim=(2, 3)).sqrt()

    near, far = difference(step), difference(2 * step)
    return torch.minimum(torch.minimum(near[:, :-step], near[:, step:]), far)


def _drawn(orders: tuple[tuple[int, ...], ...], frames: Tensor) -> Tensor:
    """One of the orders for each clip, all as likely, `(n, 3)`."""
    table = torch.tensor(orders, device=frames.device)
    return table[torch.randint(len(orders), (len(frames),), device=frames.device)]
