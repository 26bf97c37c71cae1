"""Encoders by name: images to features."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from sslflow.networks.given import Brought, Given
from sslflow.networks.token_dropout import TokenDropout, UnfitTokens, averages
from sslflow.settings.params import Count, Natural, closest

SMALL_RESNETS = {"resnet10": (1, 1, 1, 1), "resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}
VITS = {"vit_tiny": 192, "vit_small": 384, "vit_base": 768}

# timm is imported where an encoder is built: it takes longer to load than torch, and stages that only read features and
# settings build none.


class Encoder(nn.Module):
    """Images to features, without a classifier. `dim` is the width of the features, known before any image is seen;
    `map_dim` that of the maps; `facts`, plain values, what else is known of it, kept with it in its file."""

    kind: ClassVar[str] = "images"

    def __init__(
        self,
        channels: int,
        image_size: int,
        given: Given | None = None,
        *,
        name: str = "resnet18",
        width: Natural = 0,
        depth: Natural = 0,
        stem_stride: Literal[1, 2, 4] = 4,
        patch_size: Count = 16,
        grid: Natural = 1,
    ) -> None:
        """`name` is one of these, or timm's of any other network, as timm builds it:

        - `resnet10`, `resnet18`, `resnet34`: `width` is the number of channels of the first block (0: 64), the last has
          8 times as many; `stem_stride` 4 is the usual 7x7 convolution with max-pooling, 1 and 2 are a 3x3 convolution
          for small images.
        - `vit_tiny`, `vit_small`, `vit_base`: `width` (0: 192, 384, 768), `depth` in blocks (0: 12), `patch_size` in
          pixels; 64 of the width make a head, or 32 where 64 does not divide it.

        For these, features are averages over `grid` x `grid` cells of the last map, so that above 1 they keep where
        something is; 0 takes a ViT's class token.

        With `given` weights, which the caller fills in, the network is timm's of that name, its BatchNorm layers keep
        their statistics, and images are brought to what the weights expect. Raises `ValueError` for a name that nobody
        knows, or a width, grid or patch size that does not fit.
        """
        super().__init__()
        self.settings = {
            "channels": channels,
            "image_size": image_size,
            "name": name,
            "width": width,
            "depth": depth,
            "stem_stride": stem_stride,
            "patch_size": patch_size,
            "grid": grid,
        }
        self.channels, self.image_size, self.given, self.facts = channels, image_size, given, {}
        self.pool: nn.Sequential | None = None
        self.dropout = TokenDropout()
        self.brought: nn.Module = nn.Identity()
        if given:
            self.settings["given"] = asdict(given)
            self.brought = Brought(given, given.side / image_size)
            self.network: Any = _given_network(given.side, name)
        elif name in SMALL_RESNETS:
            if not grid:
                raise ValueError(
                    f"encoder.grid is 0, the class token of a ViT, and {name} has none; set it to 1 or more"
                )
            self.network = _small_resnet(channels, name, width or 64, stem_stride)
        elif name in VITS:
            self.network = _vit(channels, image_size, patch_size, width or VITS[name], depth or 12)
        else:
            self.network = _from_timm(channels, image_size, name)
        self.map_dim: int = self.network.num_features
        # Some of timm's networks put another layer between the last map and the features.
        self.dim: int = getattr(self.network, "head_hidden_size", None) or self.map_dim
        if grid and not given and (name in SMALL_RESNETS or name in VITS):
            self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(grid), nn.Flatten())
            self.dim = self.map_dim * grid * grid

    def forward(self, images: Tensor) -> Tensor:
        """Features `(n, dim)` of normalised images `(n, channels, height, width)`."""
        if self.dropout.active:
            return self._of_some_patches(self.brought(images))
        return self.network(self.brought(images)) if self.pool is None else self.pool(self.map(images))

    def _of_some_patches(self, images: Tensor) -> Tensor:
        places = self.network.patch_embed.dynamic_feat_size(images.shape[-2:])
        kept = self.dropout.kept(len(images), places[0] * places[1], images.device)
        tokens = self._tokens(self.network.patch_embed(images), kept)
        if self.pool is None:
            return self.network.forward_head(tokens)
        return averages(tokens[:, self.network.num_prefix_tokens :], kept, places, self.pool[0]).flatten(1)

    def map(self, images: Tensor) -> Tensor:
        """The last map, before features are averaged from it, `(n, map_dim, rows, columns)`; of a ViT its patches.
        Raises `ValueError` for the few of timm's networks that have none."""
        self.dropout.require_all()
        images = self.brought(images)
        return self._map(self.network.forward_features(images), images)

    def features_and_map(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What the encoder itself gives and `map`, by one pass through the network."""
        self.dropout.require_all()
        images = self.brought(images)
        return self._both(self.network.forward_features(images), images)

    def _both(self, found: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        last = self._map(found, images)
        return self.network.forward_head(found) if self.pool is None else self.pool(last), last

    def _map(self, found: Tensor, images: Tensor) -> Tensor:
        """The map in what the network's last layer gives for images that have been brought to it."""
        if found.ndim == 3:
            if not hasattr(getattr(self.network, "patch_embed", None), "dynamic_feat_size"):
                raise ValueError(
                    f"encoder.name {self.settings['name']} makes no map of the image, which this method needs; "
                    "choose another, such as resnet18 or vit_tiny"
                )
            rows, columns = self.network.patch_embed.dynamic_feat_size(images.shape[-2:])
            patches = found[:, self.network.num_prefix_tokens :]
            return patches.transpose(1, 2).unflatten(2, (rows, columns))
        return found if getattr(self.network, "output_fmt", "NCHW") == "NCHW" else found.permute(0, 3, 1, 2)

    def compile(self, **options: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Compile all that methods call: features, maps and tokens, not only the module's own call; for each shape of
        images anew, since torch can't compile a ViT's interpolated positions for images of any size."""
        for name in ("forward", "map", "features_and_map", "tokens", "masked"):
            setattr(self, name, torch.compile(getattr(self, name), **{"dynamic": False, **options}))

    @property
    def is_vit(self) -> bool:
        """Whether images become tokens: what `tokens` and `attention` need."""
        return type(self.network).__name__ == "VisionTransformer"

    @property
    def across(self) -> int:
        """Patches of a ViT along a side of an image."""
        side = self.given.side if self.given else self.image_size
        return self.network.patch_embed.dynamic_feat_size((side, side))[0]

    def tokens(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
        """A ViT's tokens after its last layer, class token first, `(n, 1 + patches, width)`.

        With `keep`, int64 `(n, k)`, all other patches are left out from the start, and cost nothing.
        """
        self.dropout.require_all()
        return self._tokens(self.network.patch_embed(self.brought(images)), keep)

    def _tokens(self, patches: Tensor, keep: Tensor | None = None) -> Tensor:
        tokens = self.network._pos_embed(patches)
        if keep is not None:
            first = self.network.num_prefix_tokens
            kept = keep[..., None].expand(-1, -1, tokens.shape[-1])
            tokens = torch.cat([tokens[:, :first], tokens[:, first:].gather(1, kept)], dim=1)
        return self.network.norm(self.network.blocks(self.network.norm_pre(tokens)))

    def masked(self, images: Tensor, hidden: Tensor, mask_token: Tensor) -> tuple[Tensor, Tensor]:
        """`features_and_map` of a ViT that sees the mask token, `(width,)`, in place of the patches that are `hidden`,
        bool `(n, patches)`, row by row."""
        self.dropout.require_all()
        images = self.brought(images)
        patches = self.network.patch_embed(images)
        places = hidden.view(*patches.shape[:-1], 1)
        return self._both(self._tokens(torch.where(places, mask_token.to(patches.dtype), patches)), images)

    @torch.no_grad()
    def attention(self, images: Tensor) -> Tensor:
        """Attention of a ViT's last layer to each patch, a mean over its heads, `(n, rows, columns)`.

        It is the class token's, or, where features are an average of patches, the mean over all patches.
        """
        images, first = self.brought(images), self.network.num_prefix_tokens
        rows, columns = self.network.patch_embed.dynamic_feat_size(images.shape[-2:])
        *before, last = self.network.blocks
        tokens = self.network.norm_pre(self.network._pos_embed(self.network.patch_embed(images)))
        for block in before:
            tokens = block(tokens)
        n, count, width = tokens.shape
        heads = last.attn.num_heads
        queries, keys, _ = (
            last.attn.qkv(last.norm1(tokens)).view(n, count, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
        )
        weights = (queries @ keys.transpose(-1, -2) * (width // heads) ** -0.5).softmax(dim=-1).mean(dim=1)
        by_class = first and self.pool is None and self.network.global_pool == "token"
        asking = weights[:, :1] if by_class else weights[:, first:]
        return asking[:, :, first:].mean(dim=1).unflatten(1, (rows, columns))


def leave_out(module: nn.Module, share: float) -> None:
    """Have all ViTs within leave out so much of their patches in training. Raises `UnfitTokens` where there is none."""
    encoders = [one for one in module.modules() if isinstance(one, Encoder) and one.is_vit]
    if share and not encoders:
        raise UnfitTokens(
            f"token_dropout is {share:g}, a share of the patches of a ViT, and no encoder of this method is one; set "
            "it to 0, or encoder.name to vit_tiny"
        )
    for encoder in encoders:
        encoder.dropout.share = share


def _small_resnet(channels: int, name: str, width: int, stem_stride: int) -> nn.Module:
    from timm.models.resnet import BasicBlock, ResNet

    network: Any = ResNet(
        BasicBlock,  # pyright: ignore[reportArgumentType]  (timm annotates the class as an instance)
        SMALL_RESNETS[name],
        num_classes=0,
        in_chans=channels,
        channels=(width, 2 * width, 4 * width, 8 * width),
        zero_init_last=False,
    )
    # timm's stem is always 64 channels wide.
    kernel, stride = (7, 2) if stem_stride == 4 else (3, stem_stride)
    network.conv1 = nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2, bias=False)
    network.bn1 = nn.BatchNorm2d(width)
    network.layer1[0] = BasicBlock(width, width)
    if stem_stride != 4:
        network.maxpool = nn.Identity()
    network.num_features = 8 * width
    network.init_weights(zero_init_last=False)
    return network


def _vit(channels: int, image_size: int, patch_size: int, width: int, depth: int) -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    if width % 32:
        raise ValueError(
            f"encoder.width {width} does not divide into the heads of a ViT; choose a multiple of 64, or of 32"
        )
    if patch_size > image_size:
        raise ValueError(
            f"encoder.patch_size {patch_size} is larger than the images, {image_size} pixels; choose a smaller"
        )
    return VisionTransformer(
        img_size=-(-image_size // patch_size) * patch_size,
        patch_size=patch_size,
        in_chans=channels,
        num_classes=0,
        embed_dim=width,
        depth=depth,
        num_heads=width // (32 if width % 64 else 64),
        # Crops of other sizes pass as well: positions are interpolated, borders filled up to whole patches.
        dynamic_img_size=True,
        dynamic_img_pad=True,
    )


def _from_timm(channels: int, image_size: int, name: str) -> nn.Module:
    import timm

    if not timm.is_model(name):
        raise ValueError(f"encoder.name: there is no encoder '{name}'{closest(name, similar(name))}")
    try:
        return timm.create_model(name, num_classes=0, in_chans=channels, img_size=image_size)
    except TypeError:  # convolutional networks take images of any size and no `img_size`
        return timm.create_model(name, num_classes=0, in_chans=channels)


def _given_network(side: int, name: str) -> nn.Module:
    """timm's network for images of three channels, whose BatchNorm layers keep what they know: a few small batches of
    other images would spoil it."""
    import timm
    from timm.layers.norm_act import freeze_batch_norm_2d

    ways: tuple[dict[str, Any], ...] = ({"img_size": side, "dynamic_img_size": True}, {"img_size": side}, {})
    for options in ways:
        try:
            return freeze_batch_norm_2d(timm.create_model(name, num_classes=0, **options))
        except TypeError:  # not every network takes these
            continue
    raise ValueError(f"timm can't build its network {name}")


def similar(name: str) -> list[str]:
    import timm

    family = re.match(r"[a-z]*", name.lower())
    return [*SMALL_RESNETS, *VITS, *(timm.list_models(f"{family.group()[:6]}*") if family else [])][:60]
