"""Other colours for each frame, as one linear change: a fifth of the price of going to hue and saturation and back."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslflow.views.colouring import Turn
from sslflow.views.strengths import Colour


class Colours(nn.Module):
    """Frames `(n, 3, rows, columns)` in [0, 1] in other brightness, contrast, saturation and hue, each frame by its own
    draw; in [0, 1] again.

    In YIQ, hue turns the plane of colours and saturation stretches it, so all four are one matrix and one shift a
    frame. Contrast is about mid-grey.
    """

    def __init__(self, colour: Colour) -> None:
        """Strengths: brightness is moved by at most `brightness`, contrast and saturation are multiplied by 1 ±
        `contrast` and 1 ± `saturation`, hue turns by at most `hue` of a circle."""
        super().__init__()
        self.strengths = colour.brightness, colour.contrast, colour.saturation, colour.hue
        self.jitter, self.grey = colour.jitter, colour.grey
        self.turn = Turn()

    def forward(self, frames: Tensor) -> Tensor:
        matrices, shifts = self.changes(len(frames), frames.device)
        changed = torch.baddbmm(shifts[:, None, None].expand(-1, 3, 1), matrices, frames.flatten(2))
        return changed.clamp(0, 1).view_as(frames)

    def changes(self, count: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
        """What is drawn for so many frames: matrices `(count, 3, 3)` for red, green and blue, and shifts `(count,)`."""
        drawn = 2 * torch.rand(4, count, device=device) - 1
        happens = torch.rand(count, device=device) < self.jitter
        brightness, contrast, saturation, hue = (
            torch.where(happens, strength * one, 0.0) for strength, one in zip(self.strengths, drawn, strict=True)
        )
        coloured = torch.rand(count, device=device) >= self.grey
        matrices = (1 + contrast)[:, None, None] * self.turn((1 + saturation) * coloured, hue)
        return matrices, brightness - contrast / 2
