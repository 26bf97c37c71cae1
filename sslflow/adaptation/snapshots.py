"""What an adapter makes of the target on its way, and which of these looks is kept, chosen without a label."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from sslflow.adaptation.density import neighbourhood_density
from sslflow.adaptation.inputs import Domain
from sslflow.adaptation.loop import AdaptStep, judge, judged_features
from sslflow.adaptation.method import Adapter, Judged
from sslflow.adaptation.task import UNKNOWN
from sslflow.clustering.groups import discover
from sslflow.runtime.checkpoint import Checkpoint
from sslflow.runtime.rng import derive


@dataclass(frozen=True)
class Look:
    """What the adapter made of the target after some steps."""

    judged: Judged
    features: Tensor
    """By which it judged, `(n, dim)`."""
    source: Tensor
    """Those of the source's images, `(m, dim)`."""
    density: float
    """The higher, the denser are the neighbourhoods of its answers."""


def looks(
    model: Adapter,
    source: Domain,
    target: Domain,
    steps: Iterator[AdaptStep],
    count: int,
    checkpoint: Checkpoint | None = None,
    state: dict[str, Any] | None = None,
) -> Iterator[Look]:
    """Take the `steps` of `adapt`, and look at the target `count` times, the last time at the end.

    With a `checkpoint` the run is kept after each look. `state` is what it held at the start, where a run goes on from
    there; `adapt` must have resumed from it.
    """
    found = [_read(kept) for kept in state["looks"]] if state else []
    yield from found
    for step in steps:
        if step.number * count % step.steps < count:
            before = judged_features(model, source)
            judged, features = judge(model, target)
            found.append(Look(judged, features, before, neighbourhood_density(judged.probabilities)))
            if checkpoint:
                checkpoint.save({**step.state(), "looks": [_state(look) for look in found]})
            yield found[-1]


def chosen(found: list[Look]) -> Look:
    """The look with the densest neighbourhoods."""
    return max(found, key=lambda look: look.density)


def unknown_groups(look: Look, seed: int) -> Tensor:
    """The group of each image that was judged unknown, from 0, −1 for the others, int64 `(n,)`."""
    rejected = look.judged.decisions == UNKNOWN
    known = (look.features[~rejected], look.judged.classes[~rejected]) if not rejected.all() else ()
    column = torch.full_like(look.judged.decisions, -1)
    column[rejected] = discover(look.features[rejected], derive(seed, "groups"), *known).labels
    return column.cpu()


def _state(look: Look) -> dict[str, Any]:
    judged = {field.name: getattr(look.judged, field.name) for field in fields(look.judged)}
    return {"judged": judged, "features": look.features, "source": look.source, "density": look.density}


def _read(state: dict[str, Any]) -> Look:
    return Look(Judged(**state["judged"]), state["features"], state["source"], state["density"])
