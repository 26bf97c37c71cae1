"""Clips to what methods see of them: frames and sounds of windows, changed by chance, on the device."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslflow.audiovisual.colours import Colours
from sslflow.audiovisual.spectrogram import LogMel
from sslflow.data.fields import Fields
from sslflow.data.formats import ClipFormat
from sslflow.settings.params import Count, Fraction, NonNegative, Positive
from sslflow.views.images import Views
from sslflow.views.placing import Placing
from sslflow.views.strengths import Colour, Crop

CROP = Crop(smallest=0.6)
COLOUR = Colour(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.05, grey=0.0)
"""Defaults for frames: weaker than for images, and never grey."""


@dataclass(frozen=True)
class Sound:
    """How sound is changed. `gain`: louder or softer by at most so many dB; `hidden_time`, `hidden_bands`: the largest
    share of the spectrogram that is hidden."""

    gain: NonNegative = 10.0
    hidden_time: Fraction = 0.15
    hidden_bands: Fraction = 0.15


class ClipViews(Views):
    """Turns clips into a tuple of tensors that a method computes its loss from; row i of every tensor belongs to clip
    i.

    A window is a stretch of a clip: its sound, and the frame nearest its middle, or several that are evenly spread over
    it. When it is, is drawn evenly from all that there are, in one way for all: time tells nothing. Frames are cropped,
    flipped and coloured, those of one window with the same crop and flip, or else their motion would be ours; sound
    gets louder or softer and loses a stretch of time and of pitch (as in SpecAugment, arXiv:1904.08779).

    In evaluation mode (`.eval()`) nothing is changed, and windows are drawn as before.
    """

    def __init__(
        self,
        format: ClipFormat,
        *,
        window: Positive = 1.0,
        crop: Crop = CROP,
        flip: Fraction = 0.5,
        colour: Colour = COLOUR,
        sound: Sound = Sound(),
    ) -> None:
        """`window` in seconds; `flip`: probability. Raises `ValueError` for a window that the clips don't hold."""
        super().__init__(format.picture)
        if window > format.seconds:
            raise ValueError(
                f"a window of {window:g} s does not fit into clips of {format.seconds:g} s: set it smaller"
            )
        self.format, self.window, self.sound = format, window, sound
        self.placing = Placing(format.side, (crop.smallest, 1.0), flip)
        self.colours = Colours(colour)
        self.log_mel = LogMel(format.rate)

    @property
    def span(self) -> float:
        """Seconds that a clip is longer than a window."""
        return self.format.seconds - self.window

    @abstractmethod
    def forward(self, fields: Fields) -> tuple[Tensor, ...]:
        """The views, `(n, …)` each."""

    def starts(self, count: int, numbers: torch.Generator | None = None) -> Tensor:
        """When a window of each of so many clips begins, drawn by chance, seconds from the clip's start, `(count,)`, on
        the CPU."""
        return torch.rand(count, generator=numbers) * self.span

    def times(self, starts: Tensor) -> Tensor:
        """When the frames of windows are that a method sees, seconds, `starts.shape` or, where these are several,
        `(*starts.shape, k)`."""
        return starts + self.window / 2

    def pictures(self, fields: Fields, starts: Tensor) -> Tensor:
        """What a method sees of the windows' pictures: a frame of each, `(n, 3, side, side)`, or several, `(n, k, 3,
        side, side)`."""
        return self.frames(fields, self.times(starts))

    def frames(self, fields: Fields, times: Tensor) -> Tensor:
        """The frames nearest to `times`, seconds `(n,)` or `(n, k)`, normalised, `(*times.shape, 3, side, side)`."""
        return self.normalised(chosen_frames(fields, self.format, times))

    def normalised(self, frames: Tensor) -> Tensor:
        """uint8 `(n, 3, side, side)` or `(n, k, 3, side, side)` to floats, changed by chance while training."""
        flat = frames.flatten(0, -4)
        if self.training:
            # As channels of one image, all frames of a window get the same crop.
            together = frames.flatten(1, -3) if frames.ndim == 5 else frames
            places = self.placing.draw(len(together), *together.shape[2:], device=together.device)
            placed = places.shown(together / 255, corners=True)
            flat = self.colours(placed.view(flat.shape)).mul_(255)
        return self.normalise(flat).unflatten(0, frames.shape[:-3])

    def sounds(self, fields: Fields, starts: Tensor) -> Tensor:
        """Spectrograms of the windows that begin at `starts`, seconds `(n,)`: `(n, 1, mels, frames)`."""
        cut = cut_sounds(fields, self.format, starts, self.window).float() / 32768
        if self.training and self.sound.gain:
            decibels = (2 * torch.rand(len(cut), 1, device=cut.device) - 1) * self.sound.gain
            cut = cut * 10 ** (decibels / 20)
        heard = self.log_mel(cut)
        if self.training:
            heard = _hide(_hide(heard, 2, self.sound.hidden_bands), 3, self.sound.hidden_time)
        return heard


class ClipWindowViews(ClipViews):
    """`ClipViews` of windows and nothing else. Since these are drawn first of all, only their frames are read."""

    @torch.no_grad()
    def forward(self, fields: Fields) -> tuple[Tensor, ...]:
        return self.of_windows(fields, self.drawn(len(fields)).to(fields.device))

    def read(self, dataset: Any, rows: np.ndarray, numbers: torch.Generator) -> Fields:
        frames = frame_numbers(self.format, self.times(self.drawn(len(rows), numbers))).view(len(rows), -1)
        return dataset.read(rows, frames if frames.shape[1] < self.format.frames else None)

    def drawn(self, count: int, numbers: torch.Generator | None = None) -> Tensor:
        """When the windows of each clip begin, seconds, `(count,)` or `(count, windows)`, on the CPU."""
        return self.starts(count, numbers)

    @abstractmethod
    def of_windows(self, fields: Fields, starts: Tensor) -> tuple[Tensor, ...]:
        """The views of the windows that begin at `starts`, as `drawn` gave them; `(n, …)` each."""


class StackViews(ClipWindowViews):
    """`ClipWindowViews` that show `frames` frames of each window, from its first to its last."""

    def __init__(
        self,
        format: ClipFormat,
        *,
        window: Positive = 1.0,
        frames: Count = 4,
        crop: Crop = CROP,
        flip: Fraction = 0.5,
        colour: Colour = COLOUR,
        sound: Sound = Sound(hidden_time=0.0),
    ) -> None:
        """As for `ClipViews`."""
        super().__init__(format, window=window, crop=crop, flip=flip, colour=colour, sound=sound)
        # The middles of equal parts: as far from the window's ends as from one another.
        self.offsets = (torch.arange(frames) + 0.5) / frames * window

    def times(self, starts: Tensor) -> Tensor:
        return starts[..., None] + self.offsets.to(starts.device)


def chosen_frames(fields: Fields, format: ClipFormat, times: Tensor) -> Tensor:
    """The frames nearest to `times`, seconds `(n,)` or `(n, k)`, uint8 `(*times.shape, 3, side, side)`."""
    places = frame_numbers(format, times)
    if "frame_numbers" in fields:
        read = fields["frame_numbers"]
        same = places.view(len(read), -1, 1) == read[:, None]
        # What was not read is out of bounds.
        places = torch.where(same.any(2), same.int().argmax(2), read.shape[1]).view_as(places)
    rows = torch.arange(len(fields), device=fields.device)
    return fields["frames"][rows.view(-1, *[1] * (times.ndim - 1)), places]


def frame_numbers(format: ClipFormat, times: Tensor) -> Tensor:
    """Which frames of a clip are nearest to `times`, seconds, int64 of the same shape."""
    return (times * format.fps).round().long().clamp(0, format.frames - 1)


def cut_sounds(fields: Fields, format: ClipFormat, starts: Tensor, seconds: float) -> Tensor:
    """`seconds` of each clip's sound from `starts`, seconds `(n,)`: int16 `(n, samples)`."""
    length = round(seconds * format.rate)
    first = (starts * format.rate).round().long().clamp(0, fields["sound"].shape[1] - length)
    return fields["sound"].gather(1, first[:, None] + torch.arange(length, device=first.device))


def partners(sources: Tensor, count: int = 1) -> Tensor:
    """For each clip `count` others of other sources, drawn by chance, int64 `(n, count)`: in each column every clip is
    the partner of one, so whatever is paired so is as common in wrong pairs as in right ones. The columns differ, as
    far as there are so many distances.

    `sources`, int64 `(n,)`, numbers what clips come from. In a group of clips sorted by source, each one's partner
    stands at a distance of at least the largest source's size and as far from the other end of the circle. Where one
    source has more than half of the clips there is no such order: clips of it that are too many are left out; they, and
    no others, get −1.
    """
    device = sources.device
    _, numbers, counts = sources.unique(return_inverse=True, return_counts=True)
    largest = int(counts.max())
    mixed = torch.randperm(len(sources), device=device)
    # By source, the sources in an order by chance, the clips of one as well.
    order = mixed[torch.rand(len(counts), device=device)[numbers][mixed].argsort(stable=True)]
    if 2 * largest > len(sources):
        big = (numbers[order] == counts.argmax()).nonzero()[:, 0]
        kept = torch.ones(len(order), dtype=torch.bool, device=device)
        kept[big[len(sources) - largest :]] = False
        order, largest = order[kept], len(sources) - largest
    found = torch.full((len(sources), count), -1, device=device)
    if largest:
        ways = torch.randperm(len(order) - 2 * largest + 1, device=device) + largest
        shifts = ways[torch.arange(count, device=device) % len(ways)]
        places = torch.arange(len(order), device=device)[:, None] + shifts
        found[order] = order[places % len(order)]
    return found


def _hide(heard: Tensor, dim: int, most: float) -> Tensor:
    """A stretch along `dim`, its length by chance up to a share `most`, replaced by the spectrogram's mean."""
    if not most:
        return heard
    size = heard.shape[dim]
    length = torch.rand(len(heard), 1, device=heard.device) * most * size
    first = torch.rand(len(heard), 1, device=heard.device) * (size - length)
    at = torch.arange(size, device=heard.device)
    hidden = (at >= first) & (at + 1 <= first + length)
    shape = [len(heard), 1, 1, 1]
    shape[dim] = size
    return torch.where(hidden.view(shape), heard.mean(dim=(1, 2, 3), keepdim=True), heard)
