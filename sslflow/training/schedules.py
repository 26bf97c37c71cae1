"""Numbers that change as a run goes on, by its progress from 0 to 1."""

from __future__ import annotations

import math


def cosine(start: float, end: float, progress: float) -> float:
    """From `start` to `end` along half a cosine: slow, fast, slow."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))


def linear(start: float, end: float, progress: float, until: float = 1.0) -> float:
    """From `start` to `end` on a straight line that arrives when progress is `until`, and stays there."""
    return end if progress >= until else start + (end - start) * progress / until
