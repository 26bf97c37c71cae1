"""A random share of a ViT's patches left out in training: less arithmetic a step, and noise (FLIP, arXiv:2212.00794;
PatchDropout, arXiv:2208.07220)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class UnfitTokens(ValueError):
    """Patches can't be left out here."""


class TokenDropout(nn.Module):
    """Which patches of each image are kept: others at each call, drawn from torch's global generator. In evaluation
    mode, or with a `share` of 0, it is not `active`, and there is nothing to ask."""

    def __init__(self) -> None:
        super().__init__()
        self.share = 0.0
        """Of the patches, that are left out."""

    @property
    def active(self) -> bool:
        """Whether any are left out now."""
        return self.training and self.share > 0

    def kept(self, images: int, patches: int, device: torch.device) -> Tensor:
        """Numbers of those that are kept, int64 `(images, k)`, as many of each image, and at least one."""
        count = max(1, round((1 - self.share) * patches))
        return torch.rand(images, patches, device=device).argsort(dim=1)[:, :count]

    def require_all(self) -> None:
        """To be called where each patch is needed. Raises `UnfitTokens` where some are left out."""
        if self.active:
            raise UnfitTokens(
                f"token_dropout is {self.share:g}, and this method needs all patches: it looks at each, or hides some "
                "itself; set it to 0"
            )


def averages(seen: Tensor, kept: Tensor, places: tuple[int, int], pool: nn.Module) -> Tensor:
    """What `pool`, which averages over cells, makes of the map of `places` rows and columns, `(n, dim, cells…)`, where
    only the patches that were kept, int64 `(n, k)`, count: `seen`, `(n, k, dim)`. A cell of which none was kept is
    0."""
    n, _, dim = seen.shape
    laid = seen.new_zeros(n, places[0] * places[1], dim + 1)
    # Beside the numbers of a patch a 1, whose average is the share of a cell that was kept.
    seen = torch.cat([seen, seen.new_ones(n, seen.shape[1], 1)], dim=2)
    found = pool(laid.scatter(1, kept[..., None].expand_as(seen), seen).mT.unflatten(2, places))
    return found[:, :-1] / found[:, -1:].clamp_min(1 / laid.shape[1])
