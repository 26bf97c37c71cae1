"""Other colours for each frame, as one linear change: a fifth of the price of going to hue and saturation and back."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sslflow.views.strengths import Colour

TO_YIQ = torch.tensor(
    [[0.299, 0.587, 0.114], [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]], dtype=torch.float64
)
"""Red, green and blue to brightness (ITU-R BT.601) and two axes of colour, as NTSC broadcasts them."""


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
        self.register_buffer("to_yiq", TO_YIQ.float(), persistent=False)
        self.register_buffer("to_rgb", TO_YIQ.inverse().float(), persistent=False)

    to_yiq: Tensor
    to_rgb: Tensor

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
        strength = (1 + saturation) * coloured
        across, along = (strength * part(2 * math.pi * hue) for part in (torch.cos, torch.sin))
        turned = torch.zeros(count, 3, 3, device=device)
        turned[:, 0, 0] = 1
        turned[:, 1, 1] = turned[:, 2, 2] = across
        turned[:, 1, 2], turned[:, 2, 1] = -along, along
        matrices = (1 + contrast)[:, None, None] * (self.to_rgb @ turned @ self.to_yiq)
        return matrices, brightness - contrast / 2
