"""How strongly views of images change them, and how often: what recipes say in `views`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt, Le

from sslflow.settings.params import Fraction, Natural, NonNegative

Share = Annotated[float, Gt(0), Le(1)]
Hue = Annotated[float, Ge(0), Le(0.5)]


@dataclass(frozen=True)
class Crop:
    """A part of the image, anywhere in it, resized to the whole. `smallest`: share of the area that it has at least."""

    smallest: Share = 0.2


@dataclass(frozen=True)
class Colour:
    """Other colours. `brightness` to `hue`: strengths, with the probability `jitter`; `grey`: probability that an image
    loses all colour. Defaults are those of MoCo v2 (arXiv:2003.04297)."""

    brightness: Fraction = 0.4
    contrast: Fraction = 0.4
    saturation: Fraction = 0.4
    hue: Hue = 0.1
    jitter: Fraction = 0.8
    grey: Fraction = 0.2


@dataclass(frozen=True)
class Blur:
    """Gaussian blur with the probability `p`, its deviation `sigma` drawn between two, in pixels."""

    p: Fraction = 0.5
    sigma: tuple[NonNegative, NonNegative] = (0.1, 2.0)

    def __post_init__(self) -> None:
        """Raises `ValueError` where the smallest deviation is above the largest."""
        _in_order("sigma", self.sigma)


@dataclass(frozen=True)
class Second:
    """Probabilities of the second view that differ from the first's: BYOL, MoCo v3, Barlow Twins and DINO have
    `Second(blur=0.1, solarize=0.2)` beside a first of `Blur(p=1.0)`. None: as in the first."""

    jitter: Fraction | None = None
    grey: Fraction | None = None
    blur: Fraction | None = None
    solarize: Fraction | None = None


@dataclass(frozen=True)
class Local:
    """Small crops of small parts. `crops`: how many; `size`: their side, as a share of the image's; `scale`: smallest
    and largest share of the area that they show; `blur`: its probability, None: as in the first view."""

    crops: Natural = 6
    size: Share = 0.5
    scale: tuple[Share, Share] = (0.05, 0.4)
    blur: Fraction | None = None

    def __post_init__(self) -> None:
        """Raises `ValueError` where the smallest share is above the largest."""
        _in_order("scale", self.scale)


def _in_order(name: str, pair: tuple[float, float]) -> None:
    if pair[0] > pair[1]:
        raise ValueError(f"{name} is {pair[0]:g} to {pair[1]:g}: expected the smaller one first")
