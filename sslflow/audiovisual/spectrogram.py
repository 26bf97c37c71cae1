"""Sound as a picture: log-mel spectrograms, worked out on the device."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslflow.settings.params import Count, NonNegative

FLOOR = 1e-6
"""Added to the power before the logarithm, about that of 16-bit rounding: silence is a number."""
CENTRE, SPREAD = -7.0, 4.0
"""About the mean and the standard deviation of log-mel values of recorded sound: what comes out is near 0 and 1."""


class LogMel(nn.Module):
    """Sound `(n, samples)`, int16 or float in [−1, 1], to log-mel spectrograms `(n, 1, mels, frames)`, float32.

    Power of windows of 25 ms every 10 ms, in triangular bands evenly spaced on Slaney's mel scale, each of area 1; the
    natural logarithm, shifted and scaled by constants: loudness becomes an offset. A second has 101 frames: the first
    and the last stand on its ends, with silence beyond them.
    """

    window: Tensor
    bands: Tensor

    def __init__(self, rate: int, *, mels: Count = 64, lowest: NonNegative = 50.0, highest: NonNegative = 0.0) -> None:
        """`rate` in samples a second; `lowest` and `highest` (0: 8 kHz, or half the rate where that is less) in Hz.
        Raises `ValueError` for a range that holds nothing."""
        super().__init__()
        highest = highest or min(8000.0, rate / 2)
        if not lowest < highest <= rate / 2:
            raise ValueError(
                f"mel bands from {lowest:g} to {highest:g} Hz; a rate of {rate} has what is between 0 and {rate / 2:g}"
            )
        self.length, self.hop = round(0.025 * rate), round(0.010 * rate)
        self.n_fft = 2 ** math.ceil(math.log2(self.length))
        self.register_buffer("window", torch.hann_window(self.length, dtype=torch.float64).float(), persistent=False)
        self.register_buffer("bands", mel_bands(rate, self.n_fft, mels, lowest, highest), persistent=False)

    @torch.no_grad()
    def forward(self, sound: Tensor) -> Tensor:
        return ((self.power(sound) + FLOOR).log() - CENTRE) / SPREAD

    def power(self, sound: Tensor) -> Tensor:
        """The power in each band, before the logarithm."""
        if not sound.is_floating_point():
            sound = sound.float() / 32768
        spectrum = torch.stft(
            sound, self.n_fft, self.hop, self.length, self.window, center=True, pad_mode="constant", return_complex=True
        )
        power = spectrum.real.square() + spectrum.imag.square()
        return (self.bands @ power)[:, None]


def mel_bands(rate: int, n_fft: int, mels: int, lowest: float, highest: float) -> Tensor:
    """Weights `(mels, n_fft // 2 + 1)` of each frequency in each band, as Slaney's Auditory Toolbox has them (1998):
    linear below 1 kHz, logarithmic above."""
    edges = _hertz(torch.linspace(_mel(lowest), _mel(highest), mels + 2, dtype=torch.float64))
    frequencies = torch.arange(n_fft // 2 + 1, dtype=torch.float64) * rate / n_fft
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (frequencies - low) / (middle - low), (high - frequencies) / (high - middle)
    return (torch.minimum(rising, falling).clamp_min(0) * 2 / (high - low)).float()


LINEAR = 200 / 3
"""Hz a mel, below 1 kHz."""
STEP = math.log(6.4) / 27
"""Logarithm of the ratio a mel, above."""


def _mel(hertz: float) -> float:
    return hertz / LINEAR if hertz < 1000 else 1000 / LINEAR + math.log(hertz / 1000) / STEP


def _hertz(mel: Tensor) -> Tensor:
    corner = 1000 / LINEAR
    return torch.where(mel < corner, mel * LINEAR, 1000 * ((mel - corner).clamp_min(0) * STEP).exp())


def sound_statistics(log_mel: Tensor) -> Tensor:
    """What a stretch of sound is like, whenever in it things happen (after arXiv:1608.07017): of spectrograms
    `(n, 1, mels, frames)`, statistics `(n, 2 * mels + 48)`, float32.

    - the mean of each band over time, less the mean of all: colour without loudness;
    - the standard deviation of each band;
    - modulation: of each of eight groups of bands, the share of its variance in each of six octaves of rate, from the
      slowest on.

    Each of the three is divided by the square root of its width, so that they count alike.
    """
    bands = log_mel[:, 0].float()
    mean, std = bands.mean(dim=2), bands.std(dim=2, correction=0)
    groups = F.adaptive_avg_pool1d(bands.transpose(1, 2), 8).transpose(1, 2)
    rates = torch.fft.rfft(groups - groups.mean(dim=2, keepdim=True), dim=2).abs().square()[..., 1:]
    octaves = torch.stack([rates[..., 2**k - 1 : 2 ** (k + 1) - 1].sum(dim=2) for k in range(6)], dim=2)
    shares = octaves / (rates.sum(dim=2, keepdim=True) + 1e-3 * bands.shape[2])
    blocks = mean - mean.mean(dim=1, keepdim=True), std, shares.flatten(1)
    return torch.cat([block / block.shape[1] ** 0.5 for block in blocks], dim=1)
