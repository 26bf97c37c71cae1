"""A teacher's answers, probabilities over prototypes, kept from being the same for all images; and those of a ViT about
patches that its student doesn't see."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslflow.networks.encoder import Encoder
from sslflow.runtime.distributed import all_reduce_sum, gather, gather_uneven, rank, world_size


def dino_targets(logits: Tensor, centre: Tensor, temperature: float) -> Tensor:
    """The teacher's answers, probabilities `(crops, n, k)`, from its logits, of the same shape, and the centre
    `(k,)`."""
    return ((logits.float() - centre) / temperature).softmax(dim=2)


def batch_mean(logits: Tensor) -> Tensor:
    """Mean `(k,)` of logits `(crops, n, k)` over all processes, of equally many images each."""
    return all_reduce_sum(logits.float().mean(dim=(0, 1))) / world_size()


def sinkhorn(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Codes `(n, k)` of scores `(n, k)`: for large `epsilon` alike, for small ones a single prototype each.

    Every row sums to 1, and every column to n / k, the more closely the more `iterations`. Worked out as logarithms in
    float32: exp(scores / epsilon) itself would overflow.
    """
    logs = scores.float() / epsilon
    for _ in range(iterations):
        logs = logs - logs.logsumexp(dim=0)
        logs = logs.log_softmax(dim=1)
    return logs.exp()


@torch.no_grad()
def balanced(logits: Tensor, temperature: float, iterations: int = 3) -> Tensor:
    """Codes of this process's logits `(n, k)` by `sinkhorn`, balanced over the rows of all processes, which may have
    different numbers of them."""
    before = gather(torch.tensor([len(logits)], device=logits.device))[: rank()].sum()
    codes = sinkhorn(gather_uneven(logits.float()), temperature, iterations)
    return codes[before : before + len(logits)]


class TwoHeads(nn.Module):
    """An encoder that is a ViT, a head for its features and another for its patches."""

    def __init__(self, encoder: Encoder, head: nn.Module, patch_head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head, self.patch_head = encoder, head, patch_head

    def forward(self, images: Tensor, asked: Tensor, mask_token: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """What the heads make of images, `(n, k)`, and of those m of their patches that are `asked`, bool
        `(n, patches)`, `(m, k)`; and the features, `(n, dim)`. A mask token, `(width,)`, where there is one, stands in
        for these patches."""
        features, last = (
            self.encoder.features_and_map(images)
            if mask_token is None
            else self.encoder.masked(images, asked, mask_token)
        )
        return self.head(features), self.patch_head(last.flatten(2).mT[asked]), features


def patch_cross_entropy(targets: Tensor, logits: Tensor, asked: Tensor) -> Tensor:
    """Cross entropy of the logits of patches with the targets, probabilities, both `(m, k)`: a mean over each image's
    patches, then over the images, those without any counted as 0; scalar. `asked`, bool `(n, patches)`, says whose the
    m patches are."""
    return mean_over_asked(-(targets * F.log_softmax(logits.float(), dim=1)).sum(dim=1), asked)


def mean_over_asked(values: Tensor, asked: Tensor) -> Tensor:
    """Mean of what is known of patches, `(m,)`, over each image's patches, then over the images, those without any
    counted as 0; scalar. `asked`, bool `(n, patches)`, says whose the m patches are."""
    shares = (1 / asked.sum(dim=1, keepdim=True).clamp(min=1)).expand_as(asked)[asked]
    return (values * shares).sum() / len(asked)


def mean_over_all(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean `(k,)` of the rows `(m, k)` of all processes, and their number, scalar; where there are none, 0."""
    sums = all_reduce_sum(torch.cat([rows.float().sum(dim=0), rows.new_tensor([len(rows)], dtype=torch.float32)]))
    return sums[:-1] / sums[-1].clamp(min=1), sums[-1]


def require_vit(encoder: Encoder, method: str) -> None:
    """Raises `ValueError` for an encoder that has no patches to hide."""
    if not encoder.is_vit:
        raise ValueError(
            f"{method} needs a ViT, whose patches it can hide, and encoder.name is {encoder.settings['name']}: set "
            "encoder.name to vit_tiny, and encoder.patch_size to 4 for small images"
        )
