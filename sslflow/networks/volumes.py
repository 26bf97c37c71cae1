"""Encoders of volumes: blocks of voxels to features, by 3-D convolutions or a small vision transformer."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslflow.settings.params import Count, Natural

RESNETS = {"resnet10": (1, 1, 1, 1), "resnet18": (2, 2, 2, 2)}
"""Blocks of each stage."""
HEAD = 32
"""Width of a ViT's head."""


class VolumeEncoder(nn.Module):
    """Blocks to features, without a classifier. `dim` is the width of the features, `map_dim` that of the maps, `dims`
    those of the maps of all stages; `facts`, plain values, what else is known of it, kept with it in its file."""

    kind: ClassVar[str] = "volumes"

    def __init__(
        self,
        channels: int,
        side: int,
        *,
        name: Literal["resnet10", "resnet18", "vit"] = "resnet10",
        width: Natural = 0,
        depth: Natural = 0,
        stem_stride: Literal[1, 2, 4] = 2,
        patch_size: Count = 4,
        grid: Natural = 1,
    ) -> None:
        """`resnet10` and `resnet18` are their namesakes with 3x3x3 convolutions (arXiv:1711.09577): `width` is the
        number of channels of the first stage (0: 32), the last has 8 times as many; `stem_stride` 4 is a 7x7x7
        convolution with max-pooling, 1 and 2 are a 3x3x3 convolution. `vit` sees patches of `patch_size` voxels a side:
        `width` (0: 192, a multiple of 32), `depth` in blocks (0: 6). For all, features are averages over `grid` x
        `grid` x `grid` cells of the last map.

        Raises `ValueError` for a width, grid or patch size that does not fit.
        """
        super().__init__()
        self.settings = {
            "channels": channels,
            "side": side,
            "name": name,
            "width": width,
            "depth": depth,
            "stem_stride": stem_stride,
            "patch_size": patch_size,
            "grid": grid,
        }
        self.channels, self.side, self.facts = channels, side, {}
        if not grid:
            raise ValueError("encoder.grid is 0, a class token, and encoders of volumes have none; set it to 1 or more")
        self.network: Any = (
            _ResNet(channels, RESNETS[name], width or 32, stem_stride)
            if name in RESNETS
            else _ViT(channels, side, patch_size, width or 192, depth or 6)
        )
        self.dims: tuple[int, ...] = self.network.dims
        self.map_dim = self.dims[-1]
        self.dim = self.map_dim * grid**3
        self.pool = nn.Sequential(nn.AdaptiveAvgPool3d(grid), nn.Flatten())

    def forward(self, volumes: Tensor) -> Tensor:
        """Features `(n, dim)` of normalised volumes `(n, channels, depth, height, width)`."""
        return self.pool(self.map(volumes))

    def map(self, volumes: Tensor) -> Tensor:
        """The last map, before features are averaged from it, `(n, map_dim, depth, height, width)`."""
        return self.maps(volumes)[-1]

    def maps(self, volumes: Tensor) -> list[Tensor]:
        """The maps of all stages, finest first, `(n, dims[i], …)`; a ViT has one."""
        return self.network(volumes)

    @property
    def is_vit(self) -> bool:
        """Whether volumes become tokens: what `tokens` needs."""
        return isinstance(self.network, _ViT)

    def tokens(self, volumes: Tensor, keep: Tensor | None = None) -> Tensor:
        """A ViT's tokens after its last layer, `(n, patches, width)`; with `keep`, int64 `(n, k)`, all other patches
        are left out from the start, and cost nothing."""
        tokens = self.network.embedded(volumes).flatten(2).mT
        if keep is not None:
            tokens = tokens.gather(1, keep[..., None].expand(-1, -1, tokens.shape[-1]))
        return self.network.norm(self.network.blocks(tokens))

    def compile(self, **options: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Compile all that methods call."""
        for name in ("forward", "map", "maps", "tokens"):
            setattr(self, name, torch.compile(getattr(self, name), **{"dynamic": False, **options}))


class _ResNet(nn.Module):
    """Stages of residual blocks, each but the first of half the resolution and twice the width of the one before."""

    def __init__(self, channels: int, depths: tuple[int, ...], width: int, stem_stride: int) -> None:
        super().__init__()
        kernel, stride = (7, 2) if stem_stride == 4 else (3, stem_stride)
        self.stem = nn.Sequential(
            nn.Conv3d(channels, width, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm3d(width),
            nn.ReLU(inplace=True),
            nn.MaxPool3d(3, 2, 1) if stem_stride == 4 else nn.Identity(),
        )
        self.dims = tuple(width * 2**stage for stage in range(len(depths)))
        before, stages = width, []
        for stage, (blocks, after) in enumerate(zip(depths, self.dims, strict=True)):
            first = _Residual(before, after, 2 if stage else 1)
            stages.append(nn.Sequential(first, *(_Residual(after, after, 1) for _ in range(blocks - 1))))
            before = after
        self.stages = nn.ModuleList(stages)
        for layer in self.modules():
            if isinstance(layer, nn.Conv3d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, volumes: Tensor) -> list[Tensor]:
        found, maps = self.stem(volumes), []
        for stage in self.stages:
            found = stage(found)
            maps.append(found)
        return maps


class _Residual(nn.Module):
    """Two 3x3x3 convolutions beside an identity (arXiv:1512.03385)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv3d(before, after, 3, stride, 1, bias=False),
            nn.BatchNorm3d(after),
            nn.ReLU(inplace=True),
            nn.Conv3d(after, after, 3, 1, 1, bias=False),
            nn.BatchNorm3d(after),
        )
        same = stride == 1 and before == after
        self.beside = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv3d(before, after, 1, stride, bias=False), nn.BatchNorm3d(after))
        )

    def forward(self, inputs: Tensor) -> Tensor:
        return F.relu(self.body(inputs) + self.beside(inputs))


class _ViT(nn.Module):
    """Transformer blocks on patches, with learned positions and no class token."""

    def __init__(self, channels: int, side: int, patch_size: int, width: int, depth: int) -> None:
        super().__init__()
        if width % HEAD:
            raise ValueError(f"encoder.width {width} does not divide into heads of {HEAD}: set it to a multiple")
        if patch_size > side:
            raise ValueError(f"encoder.patch_size {patch_size} is larger than the blocks, {side} voxels")
        from timm.models.vision_transformer import Block  # as in networks.encoder: it takes long to load

        self.patch = patch_size
        self.embed = nn.Conv3d(channels, width, patch_size, patch_size)
        across = -(-side // patch_size)
        self.positions = nn.Parameter(torch.empty(1, width, across, across, across))
        nn.init.trunc_normal_(self.positions, std=0.02)
        self.blocks = nn.Sequential(*(Block(width, width // HEAD, qkv_bias=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.dims = (width,)

    def embedded(self, volumes: Tensor) -> Tensor:
        """Patches with their positions, `(n, width, …)`. Rims are filled up to whole patches, and positions are
        interpolated for volumes of another size."""
        missing = [-size % self.patch for size in reversed(volumes.shape[2:])]
        if any(missing):
            volumes = F.pad(volumes, [side for rest in missing for side in (0, rest)])
        found = self.embed(volumes)
        if found.shape[2:] == self.positions.shape[2:]:
            return found + self.positions
        return found + F.interpolate(self.positions, size=found.shape[2:], mode="trilinear")

    def forward(self, volumes: Tensor) -> list[Tensor]:
        found = self.embedded(volumes)
        tokens = self.norm(self.blocks(found.flatten(2).mT))
        return [tokens.mT.unflatten(2, found.shape[2:])]
