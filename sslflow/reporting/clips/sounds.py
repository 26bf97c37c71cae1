"""Sounds inside a page: to look at as spectrograms, and to play."""

from __future__ import annotations

import base64
import io
import wave
from functools import cache

import numpy as np
import torch
from PIL import Image

from sslflow.audiovisual.spectrogram import LogMel
from sslflow.drawing.embedded import Picture, picture

RATE = 16_000
"""Samples a second at the most; of a higher rate, what is above 8 kHz is left out."""
SECONDS = 3.0
"""Of a longer sound the beginning is played."""
DARKEST, BRIGHTEST = -1.5, 2.0
"""Values of `LogMel` that get the first and the last colour: near silence, and loud."""
STOPS = np.array([(0, 0, 4), (66, 10, 104), (147, 38, 103), (221, 81, 58), (252, 165, 10), (252, 255, 164)])


class Player:
    """Sounds as data: URLs, until `most` characters are used up."""

    def __init__(self, most: int) -> None:
        self.left = most

    def url(self, samples: np.ndarray, rate: int) -> str:
        """int16 `(n,)` as a WAV of 16 bits, '' if it is silence or there is no more room."""
        if not samples.any():
            return ""
        url = (
            "data:audio/wav;base64," + base64.b64encode(wav(*lowered(samples[: round(SECONDS * rate)], rate))).decode()
        )
        if len(url) > self.left:
            return ""
        self.left -= len(url)
        return url


def wav(samples: np.ndarray, rate: int) -> bytes:
    """A WAV file of int16 `(n,)`, one channel."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes(np.ascontiguousarray(samples, dtype="<i2").tobytes())
    return file.getvalue()


def lowered(samples: np.ndarray, rate: int) -> tuple[np.ndarray, int]:
    """The same sound at `RATE` if its rate is higher, by leaving out the upper part of its spectrum."""
    count = round(len(samples) * RATE / rate)
    if rate <= RATE or not count:
        return samples, rate
    spectrum = np.fft.rfft(samples)[: count // 2 + 1]
    lower = np.fft.irfft(spectrum, count) * (count / len(samples))
    return np.rint(lower).clip(-32768, 32767).astype(np.int16), RATE


def spectrogram(samples: np.ndarray, rate: int, width: int, height: int) -> Picture:
    """The log-mel spectrogram of int16 `(n,)`, time across, low tones below."""
    heard = _log_mel(rate)(torch.from_numpy(np.ascontiguousarray(samples))[None])[0, 0].numpy()
    shares = (heard[::-1] - DARKEST) / (BRIGHTEST - DARKEST)
    return picture(Image.fromarray(coloured(shares)).resize((width, height), Image.Resampling.BILINEAR))


def coloured(shares: np.ndarray) -> np.ndarray:
    """Numbers, of which [0, 1] is shown, from dark to bright: uint8 `(*shares.shape, 3)`."""
    at = np.clip(shares, 0, 1)
    stops = np.linspace(0, 1, len(STOPS))
    return np.stack([np.interp(at, stops, STOPS[:, channel]) for channel in range(3)], axis=-1).astype(np.uint8)


@cache
def _log_mel(rate: int) -> LogMel:
    return LogMel(rate)
