"""Both domains of an adaptation on one map of their features: by domain, and by class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup

from sslflow.drawing.svg import INK, Points, colour, scatter
from sslflow.reporting.adaptation.decisions import Decisions
from sslflow.reporting.images import atlas
from sslflow.runtime.rng import permutation

NAMED = 12
"""Classes, beyond which their names would stand on one another."""


@dataclass(frozen=True)
class Map:
    """A drawing, what it shows, and what its colours mean."""

    title: str
    meaning: str
    drawing: Markup
    legend: list[tuple[str, str]]
    """Name and colour."""


def maps(made: Decisions, tensors: Mapping[str, np.ndarray], count: int, seed: int, file: Path) -> list[Map]:
    """Two drawings of the same map, of at most `count` images, half of them of either domain.

    `tensors`, read from `file`: features `source` `(m, dim)` and `target` `(n, dim)`, `source_labels` `(m,)`. Raises
    `ValueError` where they are not of the images that were decided on.
    """
    source, target, labels = tensors["source"], tensors["target"], tensors["source_labels"]
    if len(target) != len(made.paths) or len(source) != len(labels):
        raise ValueError(
            f"{file}: features of {len(source)} source and {len(target)} target images; expected {len(labels)} and "
            f"{len(made.paths)}; run `dvc repro`"
        )
    here, there = (
        np.sort(permutation(len(features), seed, "report", domain).numpy()[: max(1, count // 2)])
        for domain, features in (("source", source), ("target", target))
    )
    places = atlas.embed(np.concatenate([source[here], target[there]]).astype(np.float32), seed)
    of_source, of_target = places[: len(here)], places[len(here) :]
    domains = [Points("source", of_source, "var(--s0)"), Points("target", of_target, "var(--s1)")]
    names, meaning, rest = _answers(made)
    classes = _by_class(made.classes, (of_source, labels[here]), (of_target, names[there]), rest)
    return [
        Map(
            "By domain",
            "domains that suit one another lie on one another",
            scatter(domains, "Map by domain"),
            _legend(domains),
        ),
        Map("By class", meaning, scatter(classes, "Map by class"), _legend(classes)),
    ]


def _answers(made: Decisions) -> tuple[np.ndarray, str, str]:
    """Of each target image the class by which it is coloured, '' for what is of none; what that means, and what is of
    none."""
    if made.labelled.any():
        names = np.where(made.known, made.actual, "")
        return names, "small: source; large: target, by its true class", "not of the source's classes"
    return np.where(made.rejected, "", made.predicted), "small: source; large: target, by the answer", "rejected"


def _by_class(
    classes: tuple[str, ...], source: tuple[np.ndarray, np.ndarray], target: tuple[np.ndarray, np.ndarray], rest: str
) -> list[Points]:
    """The source's images by class, faint, then the target's, those of no class first."""
    (here, labels), (there, names) = source, target
    colours = [colour(number, len(classes)) for number in range(len(classes))]
    named = len(classes) <= NAMED
    faint = [
        Points(name, here[labels == number], colours[number], faint=True, named=named)
        for number, name in enumerate(classes)
    ]
    clear = [Points(name, there[names == name], colours[number]) for number, name in enumerate(classes)]
    return [*faint, Points(rest, there[names == ""], INK), *clear]


def _legend(kinds: list[Points]) -> list[tuple[str, str]]:
    """Only what occurs, and each name once; of too many classes to tell by their colour, only what is of none."""
    found = {kind.name: kind.colour for kind in kinds if len(kind.places)}
    if len(found) <= NAMED + 1:
        return list(found.items())
    return [(name, shade) for name, shade in found.items() if shade == INK]
