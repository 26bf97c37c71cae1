"""Do picture and sound belong together? Right and wrong pairs of windows, how they are told apart, and by what else
they could have been."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sslflow.audiovisual.method import CHUNK, PairMethod
from sslflow.audiovisual.views import partners
from sslflow.audiovisual.windows import Windows
from sslflow.data.dataset import Dataset
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
    low, high = interval(right, sources[pairs.pictures.numpy()], seed)
    found = {"accuracy": float(right.mean()), "low": low, "high": high, "auc": ranked(scores, pairs.same)}
    classes = torch.from_numpy(labels)
    own, other = classes[pairs.pictures], classes[pairs.sounds]
    differ = (((own != other) & (own >= 0) & (other >= 0)).view(2, -1))[1].repeat(2).numpy()
    return {**found, "other_class": float(right[differ].mean())} if differ.any() else found


def controls(
    embedded: tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]],
    facts: tuple[Tensor, Tensor],
    pairs: tuple[Pairs, Pairs],
    sources: np.ndarray,
    seed: int,
) -> dict[str, float]:
    """What linear classifiers make of the same pairs without comparing sound and picture: each of the arguments is that
    of windows to train on and of those to test on, `facts` as `file_facts` has them.

    `picture`, `sound` see the embedding of one side; `metadata` what the two files say of themselves, and when in them
    the windows are. All three must stand at one half, within their interval: else a score means nothing.

    `conditions` sees in what the frame rates and sound rates of the two files differ. Of clips recorded in different
    ways it may well be above one half: then a model can tell pairs by the recording.
    """
    groups = sources[pairs[1].pictures.numpy()]

    def features(name: str, part: int) -> Tensor:
        ours = pairs[part]
        if name == "picture":
            return _flat(embedded[part][0])[ours.pictures]
        if name == "sound":
            return _flat(embedded[part][1])[ours.sounds]
        if name == "metadata":
            return torch.cat([facts[part][ours.pictures], facts[part][ours.sounds]], dim=1)
        return (facts[part][ours.pictures] - facts[part][ours.sounds]).abs()[:, -2:]

    found = {}
    for name in ("picture", "sound", "metadata", "conditions"):
        told = told_by(features(name, 0), pairs[0].same, features(name, 1), pairs[1].same, groups, seed)
        found |= {f"{name}_{key}": value for key, value in told.items()}
    return found


def file_facts(clips: Dataset, windows: Windows) -> Tensor:
    """What is known of each window without looking or listening: when it begins in the file (seconds), the file's
    duration and size (their logarithms), frame rate and sound rate, float32 `(w, 5)`."""
    columns = {
        name: np.nan_to_num(clips.column(name, windows.rows).astype(np.float64))
        for name in ("start", "duration", "size", "fps", "rate")
    }
    columns["start"] = columns["start"] + windows.starts.numpy()
    for name in ("duration", "size"):
        columns[name] = np.log1p(columns[name])
    return torch.from_numpy(np.stack(list(columns.values()), axis=1)).float()


def _flat(embeddings: Tensor) -> Tensor:
    """Embeddings `(w, dim)`, or the mean over the cells or moments of `(w, dim, cells)`."""
    return embeddings.flatten(2).mean(dim=2) if embeddings.ndim > 2 else embeddings
