"""Scores of an adaptation, beside those that only somebody who knows the labels could have."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sslflow.adaptation.task import UNKNOWN, UNLABELLED, Answers
from sslflow.examination.adaptation.open_set import best_threshold, open_set_scores


@dataclass(frozen=True)
class Decisions:
    """What an adapter decided about the target's images, all `(n,)`."""

    decisions: Tensor
    """The class, or `UNKNOWN`, int64."""
    classes: Tensor
    """The most probable class, int64."""
    unknownness: Tensor
    """Float32 in [0, 1]."""
    groups: Tensor
    """Of the unknown images, from 0; −1 for the others, int64."""


def adaptation_scores(made: Decisions, answers: Answers) -> dict[str, float]:
    """`open_set_scores` of the decisions, and beside them:

    - `main`: `h`, or where nothing is unknown `accuracy`, or where all is `unk`;
    - `main_half`: with all above half of the largest unknownness rejected, as DANCE does;
    - `main_best_threshold`: at the best threshold, which only knowing the labels would give.

    Nothing without labels.
    """
    labelled = answers.labels != UNLABELLED
    if not labelled.any():
        return {}
    actual = answers.labels[labelled]
    names = sorted(set(answers.names))
    fine = torch.tensor([names.index(name) for name in answers.names])[labelled]
    decisions, classes, unknownness = (column[labelled] for column in (made.decisions, made.classes, made.unknownness))

    def main(found: dict[str, float]) -> float:
        return found.get("h", found.get("accuracy", found.get("unk", 0.0)))

    found = open_set_scores(actual, decisions, classes, unknownness, made.groups[labelled], fine)
    _, possible = best_threshold(actual, classes, unknownness)
    at_half = open_set_scores(actual, torch.where(unknownness > 0.5, UNKNOWN, classes), classes, unknownness)
    return {**found, "main": main(found), "main_half": main(at_half), "main_best_threshold": possible}
