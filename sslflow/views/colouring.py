"""Other colours, blur and solarisation of a whole batch, drawn at once and on the device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslflow.data.formats import ImageFormat
from sslflow.views.strengths import Blur, Colour

TO_YIQ = torch.tensor(
    [[0.299, 0.587, 0.114], [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]], dtype=torch.float64
)
"""Red, green and blue to brightness (ITU-R BT.601) and two axes of colour, as NTSC broadcasts them."""
THRESHOLD, ADDITION = (0.4, 0.6), 0.1
"""Of solarisation: from which value on pixels are inverted, and by how much all are brighter or darker before."""


@dataclass(frozen=True)
class Chances:
    """Probabilities that an image's colours change, that it turns grey, is blurred, is solarised."""

    jitter: float
    grey: float
    blur: float
    solarize: float


class Turn(nn.Module):
    """Matrices that change hue and saturation and leave brightness alone."""

    def __init__(self) -> None:
        super().__init__()
        to_rgb = TO_YIQ.inverse()
        grey = to_rgb[:, :1] @ TO_YIQ[:1]
        quarter = to_rgb[:, 2:] @ TO_YIQ[1:2] - to_rgb[:, 1:2] @ TO_YIQ[2:]
        parts = torch.stack([grey, torch.eye(3, dtype=torch.float64) - grey, -quarter])
        self.register_buffer("parts", parts.float(), persistent=False)

    parts: Tensor

    def forward(self, saturation: Tensor, hue: Tensor) -> Tensor:
        """Matrices `(n, 3, 3)` for red, green and blue that multiply the saturation, and turn the hue by a part of the
        circle, red towards yellow, both `(n,)`. In YIQ, hue turns the plane of colours and saturation stretches it."""
        grey, colours, quarter = self.parts
        across, along = (saturation * part(2 * math.pi * hue) for part in (torch.cos, torch.sin))
        return grey + across[:, None, None] * colours + along[:, None, None] * quarter


class Colouring(nn.Module):
    """Changes of colours, blur and inverted bright pixels, for images in [0, 1].

    Brightness, contrast, saturation and hue are one matrix and one shift an image, and turning grey is part of it:
    brightness multiplies the image, contrast its differences from its mean grey, saturation each pixel's from its own
    grey; hue turns in YIQ. So these commute, and no order need be drawn; values are cut to [0, 1] once, behind them
    all. Images without three channels have brightness and contrast alone, about the mean of all channels.
    """

    def __init__(self, format: ImageFormat, colour: Colour, blur: Blur, chances: Sequence[Chances]) -> None:
        """`chances`, of as many views as a batch holds, one behind the other, in place of those in `colour` and
        `blur`."""
        super().__init__()
        self.coloured = format.channels == 3
        self.contrast, self.sigma = colour.contrast > 0, blur.sigma
        strengths = colour.brightness, colour.contrast, colour.saturation, colour.hue
        self.register_buffer("strengths", torch.tensor(strengths)[:, None], persistent=False)
        every = torch.tensor([[one.jitter, one.grey, one.blur, one.solarize] for one in chances])
        self.register_buffer("chances", every.T.contiguous(), persistent=False)
        jitter, grey, self.blurs, self.solarizes = (every > 0).any(dim=0).tolist()
        self.changes = jitter or (grey and self.coloured)
        self.turn = Turn()
        kernel = max(3, format.size // 10 // 2 * 2 + 1)
        self.register_buffer("taps", torch.arange(kernel) - kernel // 2, persistent=False)

    strengths: Tensor
    chances: Tensor
    taps: Tensor

    def forward(self, images: Tensor) -> Tensor:
        """The changed images `(n, c, h, w)`, each by its own draw. Torch's global generator is asked once."""
        count = len(images)
        lots = torch.rand(11, count, device=images.device)
        happens = lots[:4] < self.chances.repeat_interleave(count // self.chances.shape[1], dim=1)
        if self.changes:
            images = self._recoloured(images, self.strengths * (2 * lots[4:8] - 1) * happens[0], happens[1])
        if self.blurs:
            low, high = self.sigma
            images = blurred(images, self.taps, torch.where(happens[2], low + (high - low) * lots[8], 0.0))
        if self.solarizes:
            images = solarized(images, happens[3], lots[9:])
        return images

    def _recoloured(self, images: Tensor, amounts: Tensor, grey: Tensor) -> Tensor:
        brightness, contrast, saturation, hue = amounts
        gain = (1 + brightness) * (1 + contrast)
        shift = -(1 + brightness) * contrast
        if self.contrast:
            means = images.mean(dim=(2, 3))
            shift = shift * (means @ self.turn.parts[0, 0] if self.coloured else means.mean(dim=1))
        if not self.coloured:
            return torch.addcmul(shift.view(-1, 1, 1, 1), images, gain.view(-1, 1, 1, 1)).clamp_(0, 1)
        matrices = gain[:, None, None] * self.turn((1 + saturation) * ~grey, hue)
        changed = torch.baddbmm(shift[:, None, None].expand(-1, 3, 1), matrices, images.flatten(2))
        return changed.clamp_(0, 1).view_as(images)


def blurred(images: Tensor, taps: Tensor, sigma: Tensor) -> Tensor:
    """Images `(n, c, h, w)` blurred by Gaussians of the deviations `sigma` `(n,)`, in pixels, cut off beyond `taps`,
    −k to k; borders are reflected. A deviation of 0 changes nothing."""
    count, channels, height, width = images.shape
    weights = torch.exp(-0.5 * (taps / sigma.clamp_min(1e-3)[:, None]).square())
    weights = (weights / weights.sum(dim=1, keepdim=True)).repeat_interleave(channels, dim=0)[:, None]
    # Each channel of each image is a channel of one image, with a kernel of its own.
    planes = F.pad(images, (len(taps) // 2,) * 4, mode="reflect").flatten(0, 1)[None]
    planes = F.conv2d(planes, weights[:, :, None, :], groups=count * channels)
    return F.conv2d(planes, weights[:, :, :, None], groups=count * channels).view(count, channels, height, width)


def solarized(images: Tensor, happens: Tensor, lots: Tensor) -> Tensor:
    """Images `(n, c, h, w)` of which those that it `happens` to, bool `(n,)`, have their bright pixels inverted; from
    which value on, and how much brighter or darker before, by `lots` in [0, 1), `(2, n)`."""
    low, high = THRESHOLD
    threshold = torch.where(happens, low + (high - low) * lots[0], 2.0)
    added = torch.where(happens, ADDITION * (2 * lots[1] - 1), 0.0)
    images = (images + added.view(-1, 1, 1, 1)).clamp_(0, 1)
    return torch.where(images < threshold.view(-1, 1, 1, 1), images, 1 - images)
