"""Do picture and sound belong together? Right and wrong pairs of windows, how they are told apart, and by what else
they could have been."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sslflow.audiovisual.method import CHUNK, PairMethod
from sslflow.audiovisual.views import partners
from sslflow.evaluation.intervals import interval
from sslflow.examination.clips.shortcuts import ranked, told_by
from sslflow.runtime.rng import derive


@dataclass(frozen=True)
class Pairs:
    """The picture of one window with the sound of another, or of the same. Each picture that is there is there twice,
    in a right and in a wrong pair, and so is each sound: neither tells alone which of the two it is."""

    pictures: Tensor
    """Number of the window of the picture, int64 `(p,)`."""
    sounds: Tensor
    same: Tensor
    """Whether both are of the same window, bool `(p,)`."""


def paired(wrong: str, sources: np.ndarray, seed: int) -> Pairs:
    """Right and wrong pairs of windows of `sources`, int64 `(w,)`; `wrong` as a method for pairs says: of another
    `source`, or another `moment` of the same clip."""
    return with_other_moments(len(sources)) if wrong == "moment" else with_other_sources(sources, seed)


def with_other_sources(sources: np.ndarray, seed: int) -> Pairs:
    """Every window with its own sound, and with that of a window of another source; `sources` int64 `(w,)`. Empty where
    there is one source."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "pairs"))
        others = partners(torch.from_numpy(np.ascontiguousarray(sources)))[:, 0]
    kept = (others >= 0).nonzero()[:, 0]
    return _pairs(kept, others[kept])


def with_other_moments(count: int) -> Pairs:
    """Every one of `count` windows with its own sound, and with that of the same clip's other window, the windows of a
    clip being 2i and 2i + 1."""
    own = torch.arange(count)
    return _pairs(own, own ^ 1)


def _pairs(own: Tensor, others: Tensor) -> Pairs:
    # Or else one side alone, without a look at the other, would tell more than nothing.
    assert torch.equal(own.sort().values, others.sort().values)
    same = torch.cat([torch.ones_like(own), torch.zeros_like(own)]).bool()
    return Pairs(own.repeat(2), torch.cat([own, others]), same)


@torch.no_grad()
def scored(method: PairMethod, embedded: tuple[Tensor, Tensor], pairs: Pairs) -> Tensor:
    """The method's scores of the pairs, by the embeddings of all windows' pictures and sounds: float32 `(p,)`."""
    device = next(method.parameters()).device
    parts = zip(pairs.pictures.split(CHUNK), pairs.sounds.split(CHUNK), strict=True)
    found = [method.scores(embedded[0][i].to(device), embedded[1][j].to(device)).cpu() for i, j in parts]
    return torch.cat(found) if found else torch.zeros(0)


def accuracies(
    scores: Tensor, pairs: Pairs, threshold: float, sources: np.ndarray, labels: np.ndarray, seed: int
) -> dict[str, float]:
    """`accuracy` of the decisions that what scores above `threshold` belongs together, with its 95 % interval `low`,
    `high` over sources; `auc`, which needs no threshold; and, where `labels`, int64 `(w,)`, are known, `other_class`:
    the accuracy on those windows whose wrong sound is of another class, for a guitar that is not its own may fit a
    guitar's picture perfectly well."""
    right = ((scores > threshold) == pairs.same).numpy()
    low, high = interval(right, sources[pairs.pictures.numpy()])
    found = {"accuracy": float(right.mean()), "low": low, "high": high, "auc": ranked(scores, pairs.same)}
    classes = torch.from_numpy(labels)
    own, other = classes[pairs.pictures], classes[pairs.sounds]
    differ = (((own != other) & (own >= 0) & (other >= 0)).view(2, -1))[1].repeat(2).numpy()
    return {**found, "other_class": float(right[differ].mean())} if differ.any() else found


def by_conditions(
    conditions: Sequence[tuple[Tensor, Tensor]], pairs: Sequence[Pairs], sources: Sequence[np.ndarray], seed: int
) -> dict[str, float]:
    """What a linear classifier makes of the same pairs by how they were recorded alone: by the `conditions` that a
    picture and a sound show, and by the products of the one's with the other's. `conditions`, `pairs` and `sources`,
    int64 `(w,)`, are those of windows to train on and of those to test on.

    Above one half, pictures and sounds that were recorded together can be known by that. It is the one control that can
    fail: a picture alone, or a sound alone, is in as many right pairs as in wrong ones.
    """
    scales = [(side.double().mean(dim=0), side.double().std(dim=0, correction=0)) for side in conditions[0]]

    def features(part: int) -> Tensor:
        # What is the same in all windows to train on tells nothing, and must not be blown up.
        seen, heard = (
            torch.where(spread > 1e-6 * (1 + mean.abs()), (side - mean) / spread, 0.0)
            for side, (mean, spread) in zip(conditions[part], scales, strict=True)
        )
        seen, heard = seen[pairs[part].pictures], heard[pairs[part].sounds]
        return torch.cat([seen, heard, (seen[:, :, None] * heard[:, None]).flatten(1)], dim=1)

    groups = [of[ours.pictures.numpy()] for of, ours in zip(sources, pairs, strict=True)]
    return told_by(features(0), pairs[0].same, groups[0], features(1), pairs[1].same, groups[1], seed)
