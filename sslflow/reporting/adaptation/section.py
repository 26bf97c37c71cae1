"""The report's section on domain adaptation: a table of all runs, and what one of them decided, to look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from sslflow import paths
from sslflow.adaptation.task import open_task
from sslflow.drawing.embedded import Picture
from sslflow.examination.adaptation.gaps import MARGIN
from sslflow.reporting.adaptation import gains, words
from sslflow.reporting.adaptation.decisions import Decisions, Figure, groups, histogram, read_decisions, samples
from sslflow.reporting.adaptation.domain_map import Map, maps
from sslflow.runtime.tables import read_safetensors


@dataclass(frozen=True)
class Look:
    """One run in one setting."""

    setting: str
    made: Decisions
    histogram: Markup
    maps: list[Map]
    """None where the features were not kept."""
    samples: list[tuple[str, int, list[Figure]]]
    """Title, count and some images of each kind of decision."""
    groups: list[tuple[str, Picture]]


def section(runs: gains.Adaptations, adapter: str, images: int, seed: int) -> dict[str, Any] | None:
    """What the page tells of adaptation, None where none was run.

    To look at, there is one run in each setting, or the page would be too large: of the method `adapter`, if it is
    among them, by the first seed and from the first start, with at most `images` on a map; `seed` chooses which.
    """
    blocks = runs.blocks()
    if not blocks:
        return None
    method = adapter if adapter in runs.methods else runs.methods[-1]
    return {
        "blocks": blocks,
        "columns": gains.columns(blocks),
        "oracles": gains.ORACLES,
        "baseline": gains.BASELINE,
        "meanings": gains.MEANINGS,
        "margin": f"{100 * MARGIN:g} point of it",
        "over": "seeds and target images"
        if len(runs.seeds) > 1
        else "target images; with one seed, what another would give isn't known",
        "sentences": words.sentences(runs),
        "origins": runs.origins,
        "scored": any(block.measure for block in blocks),
        "looks": [found for name in runs.settings if (found := _look(runs, method, name, images, seed))],
        "shown": f"{paths.run_name(method, runs.seeds[0])}, from {runs.starts[0]} weights",
    }


def _look(runs: gains.Adaptations, method: str, setting: str, images: int, seed: int) -> Look | None:
    file = runs.table(method, runs.seeds[0], setting, runs.starts[0])
    if not file.exists():
        return None
    task = open_task(runs.domains, setting, runs.split)
    made = read_decisions(file, task)
    kept = file.with_suffix(".safetensors")
    tensors = read_safetensors(kept) if kept.exists() else {}
    threshold = float(tensors["threshold"][0]) if tensors else None
    return Look(
        setting,
        made,
        histogram(made, threshold),
        maps(made, tensors, images, seed, kept) if tensors else [],
        samples(made, task),
        groups(made, task, seed),
    )
