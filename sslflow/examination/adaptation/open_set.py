"""How well a classifier knows what it knows: known classes recognised, classes that its source lacks rejected."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sslflow.adaptation.task import UNKNOWN
from sslflow.clustering.agreement import agreement

EQUAL = 9
"""Scores that agree to so many decimals are equal: sums in another order differ in later ones."""


def open_set_scores(
    actual: Tensor,
    predicted: Tensor,
    closed: Tensor,
    unknownness: Tensor,
    groups: Tensor | None = None,
    actual_group: Tensor | None = None,
) -> dict[str, float]:
    """Scores in [0, 1] of decisions about `n` images, n ≥ 1, all tensors `(n,)` on any device.

    `actual` is the class of each image as int64, or `UNKNOWN`; images without a label are left out by the caller.
    `predicted` is the decision, a class or `UNKNOWN`; `closed` the class that was found without rejection;
    `unknownness`, float, is higher for what is rather unknown, on any scale. For images judged unknown, `groups` is the
    number of the group that each was put in, −1 elsewhere; `actual_group` is the true class of each image that is
    unknown (other rows are not looked at).

    Of the known images:
    - `accuracy`: share that is right, a rejected one being wrong; `accuracy_closed`: without rejection;
    - `os_star`, `class_accuracy_closed`: the same two as means over the classes that occur;
    - `known_rejected`: share that was rejected.

    Of the unknown images:
    - `unk`: share that was rejected;
    - `nmi_unknown`: normalised mutual information of their groups and their classes; those in no group count as one
      more group, so that to reject less is no way to a better score.

    Of both:
    - `os`: mean of accuracy over the classes that occur, the unknown being one more class;
    - `h`: harmonic mean of `os_star` and `unk` (Fu et al., 2020); `h3`: of these two and `nmi_unknown` (UniOT,
      arXiv:2210.17067);
    - `auroc`: how often an unknown image has the higher unknownness of a pair with a known one, equals counting half;
    - `oscr`: area under the share of known images that are right (without rejection) and below a threshold, over the
      share of unknown images below it (Dhamija et al., arXiv:1811.04110); equal values are one step of the threshold,
      a straight line. At most `auroc`, at most `accuracy_closed`.

    Of all images, `rejected`: share that was rejected.

    A score that is not defined is absent: without unknown images (closed and partial settings) all that need them,
    without known images those of the known, without two classes among the unknown images `nmi_unknown` and `h3`.
    Raises `ValueError` for no images, tensors of other lengths, unknownness that is not finite, and classes below −1.
    """
    images = _Images.read(actual, closed, unknownness)
    predicted = _column("predicted", predicted, len(images.known))
    if (groups is None) != (actual_group is None):
        raise ValueError("groups and actual_group come together: found one of them; pass both, or neither")
    known, rejected = images.known, predicted == UNKNOWN
    scores = {"rejected": _share(rejected)}
    if known.any():
        right, right_closed = (predicted == images.actual)[known], images.right[known]
        scores |= {
            "accuracy": _share(right),
            "accuracy_closed": _share(right_closed),
            "os_star": float((right * images.weights).sum()),
            "class_accuracy_closed": float((right_closed * images.weights).sum()),
            "known_rejected": _share(rejected[known]),
        }
    if not known.all():
        scores["unk"] = _share(rejected[~known])
        if groups is not None and actual_group is not None:
            scores |= _nmi(images, groups, actual_group)
    if known.any() and not known.all():
        scores["os"] = (images.classes * scores["os_star"] + scores["unk"]) / (images.classes + 1)
        scores["h"] = harmonic(scores["os_star"], scores["unk"])
        scores |= _ranking(images)
        if "nmi_unknown" in scores:
            scores["h3"] = harmonic(scores["os_star"], scores["unk"], scores["nmi_unknown"])
    # Weights that should sum to 1 do so but for a last bit.
    return {name: min(score, 1.0) for name, score in sorted(scores.items())}


def best_threshold(actual: Tensor, closed: Tensor, unknownness: Tensor) -> tuple[float, float]:
    """The threshold `t`, with images rejected where `unknownness > t`, of the best H that any has, and that H.

    An oracle: it looks at the labels. It is what a chosen threshold is compared with, and never a choice.

    Arguments as in `open_set_scores`. All thresholds that differ in what they reject are tried; of equally good ones,
    the highest is taken. Without unknown images it is the best accuracy with rejection, and without known images the
    best `unk`. To reject everything, `t` is the next number below the least unknownness. Raises `ValueError` as
    `open_set_scores` does.
    """
    images = _Images.read(actual, closed, unknownness)
    known = images.known
    values, place = images.unknownness.unique(return_inverse=True)
    # Cut 0 rejects all images, cut i those above the i-th value.
    rejected = 1 - _up_to(place[~known], len(values))
    if known.all():
        score = _up_to(place[known], len(values), images.right[known].double() / len(known))
    elif not known.any():
        score = rejected
    else:
        right = _up_to(place[known], len(values), images.right[known] * images.weights)
        score = 2 * right * rejected / (right + rejected).clamp(min=torch.finfo(right.dtype).tiny)
    rounded = score.round(decimals=EQUAL)
    cut = int((rounded == rounded.max()).nonzero()[-1])
    threshold = values[cut - 1] if cut else values[0].nextafter(values.new_tensor(-torch.inf))
    return float(threshold), min(float(score[cut]), 1.0)


def harmonic(*scores: float) -> float:
    """Harmonic mean of scores of at least 0: 0 where one of them is."""
    return len(scores) / sum(1 / score for score in scores) if min(scores) > 0 else 0.0


@dataclass(frozen=True)
class _Images:
    """What is true of each image and what is compared with it, checked, on the CPU."""

    actual: Tensor
    known: Tensor
    """Whether the class is one of the source's, bool `(n,)`."""
    right: Tensor
    """Whether the class without rejection is the true one, bool `(n,)`; it means nothing where that is unknown."""
    unknownness: Tensor
    weights: Tensor
    """Of each known image, float64 `(known,)`: every class that occurs weighs the same, and all sum to 1."""
    classes: int
    """Known ones that occur."""

    @classmethod
    def read(cls, actual: Tensor, closed: Tensor, unknownness: Tensor) -> _Images:
        count = len(actual)
        if not count:
            raise ValueError("no images to score: at least one with a label is needed")
        actual, closed = _column("actual", actual, count), _column("closed", closed, count)
        unknownness = _column("unknownness", unknownness, count)
        unknownness = unknownness.to(torch.promote_types(unknownness.dtype, torch.float32))
        wrong = int((~unknownness.isfinite()).sum())
        if wrong:
            raise ValueError(f"unknownness is not finite (NaN or infinite) for {wrong} of {count} images")
        if int(actual.min()) < UNKNOWN:
            raise ValueError(f"actual holds {int(actual.min())}: expected classes from 0 on, or {UNKNOWN} for unknown")
        known = actual != UNKNOWN
        _, place, counts = actual[known].unique(return_inverse=True, return_counts=True)
        weights = 1 / (counts.double() * max(len(counts), 1))
        return cls(actual, known, closed == actual, unknownness, weights[place], len(counts))


def _column(name: str, values: Tensor, count: int) -> Tensor:
    if values.shape != (count,):
        raise ValueError(f"{name} has shape {tuple(values.shape)}: expected ({count},), one entry for each image")
    return values.detach().cpu()


def _share(mask: Tensor) -> float:
    return float(mask.double().mean())


def _up_to(place: Tensor, values: int, weights: Tensor | None = None) -> Tensor:
    """For each cut, the weight of the images at or below it, float64 `(values + 1,)`; without weights, their share."""
    if weights is None:
        weights = torch.full((len(place),), 1 / max(len(place), 1), dtype=torch.float64)
    return torch.cat([torch.zeros(1).double(), place.bincount(weights, minlength=values).cumsum(dim=0)])


def _nmi(images: _Images, groups: Tensor, actual_group: Tensor) -> dict[str, float]:
    """`nmi_unknown`, where there are two classes or more to tell apart."""
    count = len(images.known)
    classes = _column("actual_group", actual_group, count)[~images.known].numpy()
    found = _column("groups", groups, count)[~images.known].numpy()
    return {"nmi_unknown": agreement(classes, found)["nmi"]} if (classes != classes[0]).any() else {}


def _ranking(images: _Images) -> dict[str, float]:
    """`auroc` and `oscr`: each known image with the share of unknown ones above it, equals counting half."""
    known, unknown = images.unknownness[images.known], images.unknownness[~images.known].sort().values
    not_above = torch.searchsorted(unknown, known, right=True) + torch.searchsorted(unknown, known)
    above = 1 - not_above.double() / (2 * len(unknown))
    return {"auroc": float(above.mean()), "oscr": float((above * images.right[images.known]).mean())}
