"""Pictures that several methods draw of what they have learned."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.no_grad()
def typical(images: Tensor, scores: Tensor, rows: int = 8, columns: int = 8) -> dict[str, Tensor]:
    """The images `(n, c, h, w)` with the highest `scores`, `(n, answers)`, a row for each of the answers that the most
    images give."""
    given = F.one_hot(scores.argmax(dim=1), scores.shape[1]).sum(dim=0)
    answers = given.topk(min(rows, int((given > 0).sum()))).indices
    best = scores[:, answers].topk(min(columns, len(images)), dim=0).indices
    return {f"top {rank + 1}": images[chosen] for rank, chosen in enumerate(best)}
