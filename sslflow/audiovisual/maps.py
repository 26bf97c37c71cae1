"""Where in a frame the sound comes from: what each cell of the picture's map has to do with it."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def without_each_cell(maps: Tensor, score: Callable[[Tensor], Tensor]) -> Tensor:
    """By how much a score of the mean over a map's cells falls when one cell is left out, `(n, rows, columns)`.

    `maps` are `(n, dim, rows, columns)`; `score` gets means `(m, dim)`, all of the first map first, and returns `(m,)`.
    No gradients are needed, and no part of the frame is painted over: a grey patch is itself something to see.
    """
    n, _, rows, columns = maps.shape
    cells = maps.flatten(2)
    count = cells.shape[2]
    whole = cells.mean(dim=2, keepdim=True)
    left = (whole * count - cells) / max(count - 1, 1)
    scores = score(torch.cat([whole, left], dim=2).transpose(1, 2).flatten(0, 1)).view(n, count + 1)
    return (scores[:, :1] - scores[:, 1:]).view(n, rows, columns)


def cosine_maps(cells: Tensor, sounds: Tensor) -> Tensor:
    """Similarity of each cell with the sound, `(n, rows, columns)`, of normalised embeddings `(n, dim, rows, columns)`
    and `(n, dim)`."""
    return torch.einsum("ndrc,nd->nrc", cells, sounds)


def enlarged(maps: Tensor, side: int) -> Tensor:
    """Maps `(n, rows, columns)` at the size of the frames, `(n, side, side)`: smooth between the middles of cells, and
    falling to the map's least value beyond the outermost ones, so that a maximum at the border is a point, too."""
    n, rows, columns = maps.shape
    least = maps.amin(dim=(1, 2), keepdim=True).expand(n, rows + 2, columns + 2).clone()
    least[:, 1:-1, 1:-1] = maps
    # Where the middle of each pixel is, in a frame that is one cell larger on every side, from -1 to 1.
    middles = (torch.arange(side, device=maps.device) + 0.5) / side * 2 - 1
    down, across = (middles * size / (size + 2) for size in (rows, columns))
    grid = torch.stack(torch.meshgrid(across, down, indexing="xy"), dim=2).expand(n, -1, -1, -1)
    return F.grid_sample(least[:, None].float(), grid, mode="bilinear", align_corners=False)[:, 0]
