"""What encoders and methods see, as images to look at."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sslflow.networks.encoder import Encoder


@torch.no_grad()
def partners(encoder: Encoder, views: Sequence[Tensor]) -> dict[str, Tensor]:
    """A first view of each image, its second view, and the three second views of the batch whose features are most
    like the first's; just the view where there is only one. Views are normalised images `(n, c, h, w)`."""
    if len(views) < 2:
        return {"view": views[0]}
    first, second = (F.normalize(encoder(view).float(), dim=1) for view in views[:2])
    nearest = (first @ second.T).topk(min(3, len(second)), dim=1).indices
    found = {f"guess {rank + 1}": views[1][nearest[:, rank]] for rank in range(nearest.shape[1])}
    return {"view": views[0], "partner": views[1], **found}


@torch.no_grad()
def typical(images: Tensor, scores: Tensor, rows: int = 8, columns: int = 8) -> dict[str, Tensor]:
    """The images `(n, c, h, w)` with the highest `scores`, `(n, answers)`, a row for each of the answers that the most
    images give."""
    given = F.one_hot(scores.argmax(dim=1), scores.shape[1]).sum(dim=0)
    answers = given.topk(min(rows, int((given > 0).sum()))).indices
    best = scores[:, answers].topk(min(columns, len(images)), dim=0).indices
    return {f"top {rank + 1}": images[chosen] for rank, chosen in enumerate(best)}


@torch.no_grad()
def attention(encoder: Encoder, images: Tensor) -> Tensor:
    """Where a ViT's last layer looks: the images `(n, c, h, w)`, darker where the attention, a mean over the heads, is
    small.

    It is the class token's attention, or, where features are an average of patches, that of all patches.
    """
    weights = encoder.attention(images)
    weights = weights / weights.amax(dim=(1, 2), keepdim=True).clamp_min(1e-12)
    # Patches at the lower and right border may lie partly outside.
    patch, (height, width) = encoder.settings["patch_size"], images.shape[-2:]
    mask = weights[:, None].repeat_interleave(patch, 2).repeat_interleave(patch, 3)[..., :height, :width]
    darkest = images.amin(dim=(2, 3), keepdim=True)
    return darkest + (images - darkest) * mask
