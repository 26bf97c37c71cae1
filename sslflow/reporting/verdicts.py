"""What the verdicts say of each run, gathered over the seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sslflow import paths
from sslflow.runtime.files import read_json, reading


@dataclass(frozen=True)
class Said:
    """One finding about a method."""

    words: str
    advice: str
    sick: bool
    seeds: tuple[int, ...]
    """The runs of which it was said, the words being those about the first."""


def collect(methods: Sequence[str], seeds: Sequence[int], root: Path = paths.ARTIFACTS) -> list[tuple[str, list[Said]]]:
    """The findings about each method, what is sick first; methods without a verdict are left out."""
    told = []
    for method in methods:
        found: dict[str, dict[int, dict]] = {}
        for seed in seeds:
            file = paths.verdict(method, seed, root)
            for finding in findings_in(file):
                found.setdefault(finding["kind"], {})[seed] = finding
        said = []
        for of_seed in found.values():
            first = next(iter(of_seed.values()))
            said.append(Said(first["words"], first["advice"], first["sick"], tuple(of_seed)))
        if said:
            told.append((method, sorted(said, key=lambda one: not one.sick)))
    return told


def findings_in(file: Path) -> list[dict[str, Any]]:
    """The findings of one run; none where there is no verdict."""
    if not file.exists():
        return []
    found = read_json(file, list)
    with reading(file):
        return [{name: one[name] for name in ("kind", "words", "advice", "sick")} for one in found]
