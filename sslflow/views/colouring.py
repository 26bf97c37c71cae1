"""Other colours, blur and solarisation of a whole batch, drawn at once and on the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslflow.data.formats import ImageFormat
from sslflow.views.strengths import Blur, Colour

Change = Callable[[Tensor, Tensor], Tensor]
LUMA = 0.299, 0.587, 0.114
"""Shares of red, green and blue in how bright a colour is (ITU-R BT.601)."""
TINY = torch.finfo(torch.float32).tiny
THRESHOLD, ADDITION = (0.4, 0.6), 0.1
"""Of solarisation: from which value on pixels are inverted, and by how much all are brighter or darker before."""


@dataclass(frozen=True)
class Chances:
    """Probabilities that an image's colours change, that it turns grey, is blurred, is solarised."""

    jitter: float
    grey: float
    blur: float
    solarize: float


def brightness(images: Tensor) -> Tensor:
    """How bright each pixel of images `(n, c, h, w)` is, `(n, 1, h, w)`: of red, green and blue a weighted mean, of
    other channels the mean."""
    if images.shape[1] != 3:
        return images.mean(dim=1, keepdim=True)
    red, green, blue = images.split(1, dim=1)
    return (LUMA[0] * red).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])


def brightened(images: Tensor, amounts: Tensor) -> Tensor:
    """Images `(n, c, h, w)` times 1 + `amounts`, `(n,)` from -1 on, as in all these changes; 0 changes nothing."""
    return (images * _factors(amounts)).clamp_(0, 1)


def contrasted(images: Tensor, amounts: Tensor) -> Tensor:
    """Their differences from the mean of their brightness, times 1 + `amounts`."""
    factors = _factors(amounts)
    middle = brightness(images).mean(dim=(2, 3), keepdim=True)
    # A value an image: on CPUs `lerp` takes five times as long for these.
    return (images * factors).add_(middle * (1 - factors)).clamp_(0, 1)


def saturated(images: Tensor, amounts: Tensor) -> Tensor:
    """Each pixel's difference from its own brightness, times 1 + `amounts`."""
    return torch.lerp(brightness(images), images, _factors(amounts)).clamp_(0, 1)


def _factors(amounts: Tensor) -> Tensor:
    return (1 + amounts).view(-1, 1, 1, 1)


def turned(images: Tensor, amounts: Tensor) -> Tensor:
    """Images `(n, 3, h, w)` whose hue is turned by `amounts` of the circle, `(n,)`, -0.5 to 0.5, red towards yellow.

    In HSV: of each pixel the largest and the smallest of the three values stay, so that it becomes brighter or darker.
    A rotation in YIQ would be one matrix, but would leave brightness as it is, by which two views of an image are then
    known to belong together.
    """
    red, green, blue = images.unbind(dim=1)
    low = images.amin(dim=1)
    span = images.amax(dim=1).sub_(low)
    # Hues in sixths of the circle: how far a colour is from red, 0 to 3, and on which side of it.
    hues = (green + blue).sub_(red).sub_(low).div_(span.clamp(min=TINY)).add_(1).copysign_(green - blue)
    hues.add_(6 * amounts.view(-1, 1, 1))
    hues.sub_((hues / 6).floor_(), alpha=6)
    # Each value is a trapezium over the circle, high as far as one sixth from its own hue and low from two sixths on;
    # red's is counted from the opposite hue, since the circle is cut at red.
    made, down = torch.empty_like(images), -span
    for values, middle, none, up in zip(made.unbind(dim=1), (3, 2, 4), (1, 2, 2), (span, down, down), strict=True):
        torch.sub(hues, middle, out=values).abs_().clamp_(1, 2).sub_(none).mul_(up).add_(low)
    return made


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


def drawn_order(count: int) -> list[int]:
    """So many numbers, from 0, in an order by chance, from the host's generator."""
    return torch.randperm(count).tolist()


class Colouring(nn.Module):
    """Changes of colours, blur and inverted bright pixels, for images in [0, 1].

    Brightness, contrast, saturation and hue change as in torchvision's ColorJitter, each image by its own draw, one
    after the other in an order that a batch shares, with values cut to [0, 1] behind each: what is cut off depends on
    the order, and a white background grows dark or stays. Then some images turn grey. Images without three channels
    have brightness and contrast alone.
    """

    def __init__(self, format: ImageFormat, colour: Colour, blur: Blur, chances: Sequence[Chances]) -> None:
        """`chances`, of as many views as a batch holds, one behind the other, in place of those in `colour` and
        `blur`."""
        super().__init__()
        self.coloured, self.sigma = format.channels == 3, blur.sigma
        strengths = colour.brightness, colour.contrast, *((colour.saturation, colour.hue) if self.coloured else (0, 0))
        self.changed = [number for number, strength in enumerate(strengths) if strength]
        self.register_buffer("strengths", torch.tensor(strengths)[:, None], persistent=False)
        every = torch.tensor([[one.jitter, one.grey, one.blur, one.solarize] for one in chances])
        self.register_buffer("chances", every.T.contiguous(), persistent=False)
        self.jitters, self.greys, self.blurs, self.solarizes = (every > 0).any(dim=0).tolist()
        kernel = max(3, format.size // 10 // 2 * 2 + 1)
        self.register_buffer("taps", torch.arange(kernel) - kernel // 2, persistent=False)

    strengths: Tensor
    chances: Tensor
    taps: Tensor
    changes: tuple[Change, ...] = (brightened, contrasted, saturated, turned)

    def forward(self, images: Tensor) -> Tensor:
        """The changed images `(n, c, h, w)`, each by its own draw. Torch's global generator is asked once on the
        device, and once on the host, for the order, so that no device is waited for."""
        count = len(images)
        lots = torch.rand(11, count, device=images.device)
        happens = lots[:4] < self.chances.repeat_interleave(count // self.chances.shape[1], dim=1)
        if self.jitters:
            amounts = self.strengths * (2 * lots[4:8] - 1) * happens[0]
            for place in drawn_order(len(self.changed)):
                number = self.changed[place]
                images = self.changes[number](images, amounts[number])
        if self.greys and self.coloured:
            images = saturated(images, -happens[1].float())
        if self.blurs:
            low, high = self.sigma
            images = blurred(images, self.taps, torch.where(happens[2], low + (high - low) * lots[8], 0.0))
        if self.solarizes:
            images = solarized(images, happens[3], lots[9:])
        return images
