"""Labels that are probably wrong: confident learning (Northcutt, Jiang and Chuang, arXiv:1911.00068)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sslflow.evaluation.linear import fit_linear
from sslflow.runtime.rng import derive, permutation

STRENGTHS = (0.1, 0.01, 1e-3)
"""Regularisation of the classifier, chosen once, on a part of the first fold's training images."""


def out_of_fold(features: Tensor, labels: Tensor, classes: int, *, folds: int, seed: int = 0) -> np.ndarray:
    """Probability of each class for every row, float32 `(n, classes)`, by a linear classifier that was fitted on other
    folds. Each class has two rows at least of `features` `(n, dim)`, `labels` int64 `(n,)`."""
    order = torch.cat([own[permutation(len(own), seed, "folds", one)] for one, own in _by_class(labels)])
    fold = torch.empty(len(labels), dtype=torch.int64)
    # Dealt in turn, class by class: no fold holds all rows of a class.
    fold[order] = torch.arange(len(labels)) % folds
    found = torch.zeros(len(labels), classes)
    strengths: tuple[float, ...] = STRENGTHS
    for number in range(folds):
        held = fold == number
        if not held.any():
            continue
        probe = fit_linear(
            features[~held], labels[~held], classes, derive(seed, "audit"),
            regularisation=strengths, iterations=200, tolerance=1e-3,
        )  # fmt: skip
        strengths = (probe.regularisation,)
        found[held] = probe.logits(features[held]).softmax(dim=1).cpu()
    return found.numpy()


def _by_class(labels: Tensor) -> list[tuple[int, Tensor]]:
    return [(one, (labels.cpu() == one).nonzero().flatten()) for one in labels.unique().tolist()]


def suspects(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places whose label is probably wrong, the most suspicious first, the class that each probably is, and its margin:
    the probability of its label less the largest of the others.

    `probabilities` `(n, classes)` are out of fold, `labels` int64 `(n,)`. A row belongs to the likeliest of the classes
    whose probability reaches the class's own mean over the rows that have its label; it is suspected where that is
    not its label, and no other class is likelier still.
    """
    n, classes = probabilities.shape
    own = probabilities[np.arange(n), labels]
    sums, counts = np.bincount(labels, own, classes), np.bincount(labels, minlength=classes)
    threshold = np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)
    confident = np.where(probabilities >= threshold, probabilities, -1.0)
    likely = confident.argmax(axis=1)
    others = probabilities.copy()
    others[np.arange(n), labels] = -1.0
    margin = own - others.max(axis=1)
    places = np.flatnonzero(
        (confident.max(axis=1) >= 0) & (likely != labels) & (likely == probabilities.argmax(axis=1))
    )
    places = places[np.argsort(margin[places], kind="stable")]
    return places, likely[places], margin[places]
