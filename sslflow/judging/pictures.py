"""What a trained method makes of a few images, as a sheet to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from sslflow.data.dataset import Dataset
from sslflow.data.fields import Fields
from sslflow.data.seen import Seen
from sslflow.drawing.contact_sheet import contact_sheet
from sslflow.drawing.stills import drawn
from sslflow.networks.encoder import Encoder
from sslflow.settings.params import Count
from sslflow.training.method import Batch, Method

THUMBNAIL = 72
"""Pixels: smaller images are drawn at the whole multiple that comes closest to it from below."""
ROWS = 10


@dataclass(frozen=True, kw_only=True)
class Shown:
    """The method is given `pictures` images, or clips, to draw from."""

    pictures: Count = 64


def sheet(method: Method, views: tuple[Tensor, ...], examples: Fields, dataset: Dataset[Any]) -> Image.Image:
    """What the method makes of the `views` of examples: its own pictures, or else which view it takes for a view's
    partner; with a ViT for images, also where it looks in the images themselves."""
    method.eval()
    seen = Seen(dataset.format).to(examples.device)
    rows = torch.arange(len(examples), device=examples.device)
    columns = dict(method.pictures(Batch(views, rows, progress=1.0))) or partners(method.encoder, views)
    if isinstance(method.encoder, Encoder) and method.encoder.is_vit:
        images = seen(examples)
        columns |= {"image": images, "looked at": attention(method.encoder, images)}
    made = [drawn(dataset, seen.restore(column[:ROWS])) for column in columns.values()]
    # Cut to the fewest rows of any column, and to colours that can be drawn.
    height = min(len(column) for column in made)
    shown = torch.stack([column[:height] for column in made], dim=1)
    scale = max(1, THUMBNAIL // shown.shape[-1])
    return contact_sheet(shown.flatten(0, 1), columns=len(made), scale=scale, column_labels=list(columns))


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
