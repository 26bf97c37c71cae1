"""Sections of params.yaml that several stages read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from sslflow.settings.params import Natural, load, lookup

Kind = Literal["images", "text", "volumes"]
"""Of data that `data/prepared` may hold."""
KINDS: tuple[Kind, ...] = get_args(Kind)
IMAGES: Kind = "images"


def data_kind(content: Mapping[str, Any] | None = None) -> Kind:
    """What `data.kind` says, in the settings file or in the `content` of another; what is none of these counts as
    images, and is told where settings are checked."""
    asked: Any = lookup(load() if content is None else content, "data").get("kind", IMAGES)
    return asked if asked in KINDS else IMAGES


@dataclass(frozen=True, kw_only=True)
class Run:
    """What is run: `methods` for images, `clip_methods` for clips, `adapt_methods` of domain adaptation, each with all
    `seeds`; beside the methods for images the rows `controls`, probed, and `tuned_controls`, fine-tuned: `random` and
    `pixels`, `scratch`, and names in `starts`; `segment`, `detect` and `depth`: those of the methods on whose maps the
    classes of pixels are learnt, things, and depth, and beside them the rows `segment_controls`, `detect_controls` and
    `depth_controls`: `random`, `scratch`, and names in `starts`, of depth also `mean`; `match`: those of which it is
    judged what they know of captions, and beside them the rows `match_controls`: `random`, `pixels`, `blind`, and names
    in `starts`; `language`: those for text of which it is asked what they know of language, and beside them the rows
    `language_controls`: `random`, `unigram`, `trigram`, `words`; `segment_volumes` and `segment_volumes_controls`: as
    `segment`, of voxels; `launch` (how a process that trains is started) is for dvc.yaml."""

    methods: tuple[str, ...]
    clip_methods: tuple[str, ...] = ()
    adapt_methods: tuple[str, ...] = ()
    controls: tuple[str, ...] = ("random", "pixels")
    tuned_controls: tuple[str, ...] = ("scratch",)
    segment: tuple[str, ...] = ()
    segment_controls: tuple[str, ...] = ()
    detect: tuple[str, ...] = ()
    detect_controls: tuple[str, ...] = ()
    match: tuple[str, ...] = ()
    match_controls: tuple[str, ...] = ()
    depth: tuple[str, ...] = ()
    depth_controls: tuple[str, ...] = ()
    language: tuple[str, ...] = ()
    language_controls: tuple[str, ...] = ()
    segment_volumes: tuple[str, ...] = ()
    segment_volumes_controls: tuple[str, ...] = ()
    seeds: tuple[Natural, ...]
    launch: str = "python -m"

    def __post_init__(self) -> None:
        """Raises `ValueError` where there is no method for images or clips, or no seed, where one stands there twice,
        and where a method that is to be judged by a stage of its own is not run."""
        if not self.methods and not self.clip_methods:
            raise ValueError("run.methods is empty: name at least one")
        if not self.seeds:
            raise ValueError("run.seeds is empty: name at least one")
        for name in (
            "methods", "clip_methods", "adapt_methods", "controls", "tuned_controls", "segment", "segment_controls",
            "detect", "detect_controls", "depth", "depth_controls", "match", "match_controls", "language",
            "language_controls", "segment_volumes", "segment_volumes_controls", "seeds",
        ):  # fmt: skip
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"run.{name} names one twice: {', '.join(map(str, values))}")
        for place in ("segment", "detect", "depth", "match", "language", "segment_volumes"):
            if other := [name for name in getattr(self, place) if name not in self.methods]:
                raise ValueError(
                    f"run.{place} names {', '.join(other)}, and run.methods doesn't: methods have to be run first; "
                    f"other weights belong into run.{place}_controls"
                )
