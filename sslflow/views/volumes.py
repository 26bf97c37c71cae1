"""Views of volumes: cubes of voxels that are moved, turned, mirrored, cropped and lit otherwise, all on the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge, Le
from torch import Tensor

from sslflow.data.fields import Fields
from sslflow.data.formats import VolumeFormat
from sslflow.settings.params import Fraction
from sslflow.views.images import Views
from sslflow.views.orientations import ORIENTATIONS, turned_by
from sslflow.views.strengths import Share

HALF = 2
BLOCKS = HALF**3
Blend = Literal["trilinear", "nearest"]
FAINTEST = 0.1
"""Contrast of a block, as a share of the data's, that is stretched no further: an empty one would become noise."""


class VolumeView(Views):
    """One view `(n, c, s, s, s)`: a random shift with reflected borders, and a mirror image left to right; little is
    changed, so that the task stays in the volume. Views of volumes read the field `volumes`, uint8 `(n, c, s, s, s)`,
    whose axes run from left to right, from back to front and from below to above where that is known."""

    def __init__(self, format: VolumeFormat, *, shift: Fraction = 0.1, flip: Fraction = 0.5) -> None:
        """`shift`: largest move along each axis, as a share of the side; `flip`: probability of a mirror image along
        the first axis, left to right: along the others it would take away where up is, and where the front. Raises
        `ValueError` for a move of a whole side, which no reflected border covers."""
        super().__init__(format)
        self.padding, self.flip = round(shift * format.side), flip
        if self.padding >= format.side:
            raise ValueError(f"views.shift {shift:g} moves volumes by their whole side: set it to less, such as 0.1")

    @torch.no_grad()
    def forward(self, fields: Fields) -> tuple[Tensor, ...]:
        return (self._moved(fields["volumes"]),)

    def _moved(self, volumes: Tensor) -> Tensor:
        n, side, device = len(volumes), volumes.shape[-1], volumes.device
        volumes = mirrored(volumes, torch.rand(n, device=device) < self.flip, 0).float()
        if self.padding:
            wide = F.pad(volumes, (self.padding,) * 6, mode="reflect")
            begin = torch.randint(2 * self.padding + 1, (n, 1, 3), device=device)
            volumes = cut(wide, begin, side)[:, 0]
        return self.normalise(volumes)


@dataclass(frozen=True)
class VolumeCrop:
    """A box anywhere in the cube, resized to the whole by trilinear interpolation: its sides are drawn by themselves,
    between the one that gives the share `smallest` of the volume and the whole."""

    smallest: Share = 0.2


@dataclass(frozen=True)
class Light:
    """Other values of voxels, drawn for each view: `brightness` moves them, as a share of the data's deviation,
    `contrast` multiplies their differences from the cube's mean by 1 − contrast to 1 + contrast, and `noise` is the
    largest deviation of what is added to each voxel."""

    brightness: Annotated[float, Ge(0), Le(2)] = 0.4
    contrast: Fraction = 0.4
    noise: Fraction = 0.2


class TwoVolumeViews(Views):
    """Two independent views of every volume, as `TwoViews` of images: a crop, a turn, mirror images, other light."""

    def __init__(
        self,
        format: VolumeFormat,
        *,
        crop: VolumeCrop = VolumeCrop(),
        flip: Fraction = 0.5,
        turn: Fraction = 0.5,
        light: Light = Light(),
    ) -> None:
        """`flip`: probability of a mirror image along each axis; `turn`: that of one of the 24 orientations of a cube,
        exactly. Where it matters which way up things are, set both to 0."""
        super().__init__(format)
        self.smallest, self.flip, self.turn, self.light = crop.smallest, flip, turn, light

    @torch.no_grad()
    def forward(self, fields: Fields) -> tuple[Tensor, ...]:
        volumes = fields["volumes"]
        first, second = self._placed(torch.cat([volumes, volumes])).chunk(2)
        return first, second

    def _placed(self, volumes: Tensor) -> Tensor:
        place = Placing(len(volumes), self.smallest, self.flip, self.turn, volumes.device)
        return self._lit(self.normalise(place.moved(volumes)))

    def _lit(self, volumes: Tensor) -> Tensor:
        light, shape = self.light, (len(volumes), 1, 1, 1, 1)
        mean = volumes.mean(dim=(2, 3, 4), keepdim=True)
        contrast, brightness = (2 * torch.rand(2, *shape, device=volumes.device) - 1).unbind()
        volumes = torch.addcmul(mean + light.brightness * brightness, volumes - mean, 1 + light.contrast * contrast)
        noise = light.noise * torch.rand(shape, device=volumes.device)
        return torch.addcmul(volumes, noise, torch.randn_like(volumes))


class PlacedVolumeView(Views):
    """One view of each volume with the classes of its voxels: both meet the same crop, turn and mirror images."""

    def __init__(
        self, format: VolumeFormat, *, smallest: Share = 0.5, flip: Fraction = 0.5, turn: Fraction = 0.0
    ) -> None:
        """As for `TwoVolumeViews`."""
        super().__init__(format)
        self.smallest, self.flip, self.turn = smallest, flip, turn

    @torch.no_grad()
    def forward(self, fields: Fields) -> tuple[Tensor, ...]:
        """Normalised volumes `(n, c, s, s, s)`, and classes uint8 `(n, s, s, s)`, of the fields `volumes` and
        `tissues`, of such a shape."""
        volumes, tissues = fields["volumes"], fields["tissues"]
        place = Placing(len(volumes), self.smallest, self.flip, self.turn, volumes.device)
        # Numbers of classes are small enough to be exact as floats.
        moved = place.moved(tissues[:, None], mode="nearest")[:, 0]
        return self.normalise(place.moved(volumes)), moved.to(torch.uint8)

    def shown(self, views: tuple[Tensor, ...]) -> list[Tensor]:
        """The volumes alone."""
        return super().shown(views[:1])


@dataclass(frozen=True)
class Blocks:
    """How blocks are cut. `gap`, that always stays free between them, and `jitter`, by which they move, are shares of
    the side of a half; the rest is the block."""

    gap: Fraction = 0.1
    jitter: Fraction = 0.15


class BlockViews(VolumeView):
    """The 2 x 2 x 2 blocks of each volume, `(n, 8, c, b, b, b)`, and the volume that they were cut from, `(n, c, s, s,
    s)`, normalised.

    What runs on from block to block would give away which belong together: each is smaller than its half of the
    volume, and lies at a random place in it. So would light: each is brought to mean 0 and deviation 1.
    """

    def __init__(self, format: VolumeFormat, *, blocks: Blocks = Blocks(), flip: Fraction = 0.5) -> None:
        """`flip` as for `VolumeView`. Raises `ValueError` where nothing is left of a block."""
        super().__init__(format, shift=0.0, flip=flip)
        self.cell = format.side // HALF
        self.gap, self.jitter = round(blocks.gap * self.cell), round(blocks.jitter * self.cell)
        self.block = self.cell - self.gap - self.jitter
        if self.block < 4:
            raise ValueError(
                f"views.blocks.gap {blocks.gap} and views.blocks.jitter {blocks.jitter} leave {max(0, self.block)} "
                f"voxels of {self.cell} to a block, and 4 are the least; choose smaller ones, or a larger data.side"
            )

    @torch.no_grad()
    def forward(self, fields: Fields) -> tuple[Tensor, ...]:
        (whole,) = super().forward(fields)
        moves = torch.randint(self.jitter + 1, (len(whole), BLOCKS, 3), device=whole.device)
        begin = corners(self.cell, whole.device) + self.gap // 2 + moves
        return even(cut(whole, begin, self.block)), whole

    def shown(self, views: tuple[Tensor, ...]) -> list[Tensor]:
        """The blocks as the encoder sees them, side by side."""
        return [self.normalise.restore(assembled(views[0], views[-1].shape[-1]))]


class Placing:
    """Where volumes come to lie, drawn for each: one of the 24 orientations, mirror images, and a box that becomes the
    whole. What is drawn is the same for all that is `moved`."""

    def __init__(self, count: int, smallest: float, flip: float, turn: float, device: torch.device) -> None:
        turns = torch.randint(len(ORIENTATIONS), (count,), device=device)
        self.turns = torch.where(torch.rand(count, device=device) < turn, turns, 0)
        mirrors = flip > torch.rand(3, count, device=device).T
        self.sides, self.centres = (torch.where(mirrors, -of, of) for of in boxes(count, smallest, device))

    def moved(self, volumes: Tensor, mode: Blend = "trilinear") -> Tensor:
        """Volumes `(n, c, s, s, s)` of any type in their new places, as floats."""
        return box_of(turned_by(volumes, self.turns).float(), self.sides, self.centres, mode)


def mirrored(volumes: Tensor, which: Tensor, axis: int) -> Tensor:
    """Volumes `(n, c, s, s, s)`, those of `which`, bool `(n,)`, mirrored along one of their three axes."""
    return torch.where(which.view(-1, 1, 1, 1, 1), volumes.flip(2 + axis), volumes)


def boxes(count: int, smallest: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Sides and centres of boxes in cubes from −1 to 1, `(count, 3)` each: sides as shares of the cube's, from the
    cube root of `smallest` to 1, centres anywhere where the box lies within the cube."""
    least = smallest ** (1 / 3)
    sides = least + (1 - least) * torch.rand(count, 3, device=device)
    return sides, (1 - sides) * (2 * torch.rand(count, 3, device=device) - 1)


def box_of(volumes: Tensor, sides: Tensor, centres: Tensor, mode: Blend = "trilinear") -> Tensor:
    """The boxes of float volumes `(n, c, s, s, s)` as `boxes` draws them, resized to the whole; a negative side
    mirrors. Voxels are areas, as with torch's `align_corners=False`, and borders go on outside."""
    side = volumes.shape[-1]
    voxels = torch.arange(side, device=volumes.device)
    places = centres[..., None] + sides[..., None] * ((2 * voxels + 1) / side - 1)
    places = (((places + 1) * side - 1) / 2).clamp(0, side - 1)
    if mode == "nearest":
        places = places.round()
    # One axis after another: products of matrices are many times as fast as `grid_sample`, which gathers eight voxels.
    weights = (1 - (places[..., None] - voxels).abs()).clamp_min(0).unbind(dim=1)
    for axis, products in zip(weights, ("nax,ncxyz->ncayz", "nay,ncxyz->ncxaz", "naz,ncxyz->ncxya"), strict=True):
        volumes = torch.einsum(products, axis, volumes)
    return volumes


def corners(cell: int, device: torch.device) -> Tensor:
    """Where the eight halves of a volume begin, in the order of its axes, int64 `(8, 3)`."""
    starts = cell * torch.arange(HALF, device=device)
    return torch.cartesian_prod(starts, starts, starts)


def cut(volumes: Tensor, begin: Tensor, side: int) -> Tensor:
    """Cubes of `side` voxels, `(n, k, c, side, side, side)`, of volumes `(n, c, s, s, s)`; `begin` holds the place of
    their first voxels, int64 `(n, k, 3)`."""
    covered = begin[..., None] + torch.arange(side, device=volumes.device)
    x, y, z = covered[:, :, 0, :, None, None], covered[:, :, 1, None, :, None], covered[:, :, 2, None, None, :]
    volume = torch.arange(len(volumes), device=volumes.device)[:, None, None, None, None]
    return volumes[volume, :, x, y, z].movedim(-1, 2)


def even(blocks: Tensor) -> Tensor:
    """Blocks `(n, k, c, b, b, b)` brought to mean 0 and standard deviation 1 in each channel; faint ones stay faint."""
    std, mean = torch.std_mean(blocks, dim=(3, 4, 5), correction=0, keepdim=True)
    return (blocks - mean) / std.clamp_min(FAINTEST)


def assembled(blocks: Tensor, side: int) -> Tensor:
    """Volumes `(n, c, side, side, side)` of eight blocks each, `(n, 8, c, b, b, b)`, for people to look at: voxels of
    the mean value stand between them."""
    cell, block = side // HALF, blocks.shape[-1]
    whole = blocks.new_zeros(len(blocks), blocks.shape[2], side, side, side)
    for number, (x, y, z) in enumerate((corners(cell, blocks.device) + (cell - block) // 2).tolist()):
        whole[:, :, x : x + block, y : y + block, z : z + block] = blocks[:, number]
    return whole
