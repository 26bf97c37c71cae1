"""Two prepared data sets side by side: a source domain, which has labels, and a target domain to adapt to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from sslflow import paths
from sslflow.ingest.images.decode import MAX_PIXELS, Background, Fit, SixteenBit
from sslflow.ingest.images.prepare import prepare
from sslflow.ingest.images.sources import EmojiLabel, open_source
from sslflow.runtime.files import sha256, write_json
from sslflow.settings.params import Count, Fraction, Natural

FACTS = "domains.json"
"""Beside both domains: which images they are, and the split file that ships for them."""


def prepare_domains(
    folder: Path,
    tell: Callable[[str], None],
    *,
    source: str,
    source_path: str = "data/raw/source",
    target: str,
    target_path: str = "data/raw/target",
    label: EmojiLabel = "category",
    image_size: Count,
    channels: Literal[1, 3],
    fit: Fit = "crop",
    background: Background = "white",
    sixteen_bit: SixteenBit = "full",
    max_pixels: Count = MAX_PIXELS,
    max_bad: Fraction = 0.5,
    workers: Natural = 0,
) -> dict[str, int]:
    """Fill `folder/source` and `folder/target` as `prepare` does; its counts, named `source_…` and `target_…`.

    No image is held out: what is to be predicted is the whole target, for which nothing may be left out, so images that
    are equal are kept there. Raises `ValueError` where the source has no two classes, and as `prepare` does.
    """
    classes = open_source(source, source_path, seed=0, test_fraction=0.0, label=label).classes
    if len(classes) < 2:
        found = f"one class, {classes[0]!r}" if classes else "no labels"
        raise ValueError(
            f"domains: expected labelled images of two classes or more as source, found {found} in {source} "
            f"({source_path}); a source of labels is samples:<name>, imagefolder, idx or torchvision:<name>"
        )
    counts = {}
    for domain, kind, path in (("source", source, source_path), ("target", target, target_path)):
        own = prepare(
            folder / domain,
            tell,
            source=kind,
            path=path,
            test_fraction=0.0,
            label=label,
            duplicates="drop" if domain == "source" else "keep",
            image_size=image_size,
            channels=channels,
            fit=fit,
            background=background,
            sixteen_bit=sixteen_bit,
            max_pixels=max_pixels,
            max_bad=max_bad,
            workers=workers,
        )
        counts |= {f"{domain}_{name}": count for name, count in own.items()}
    split = default_split(source, target, label)
    shipped = {"split": split.as_posix(), "split_sha256": sha256(split)} if split else {"split": ""}
    write_json(folder / FACTS, {"source": source, "target": target, **shipped})
    return counts


def default_split(source: str, target: str, label: str) -> Path | None:
    """The split file that ships for two samples of the same things, if they are such; `label` is for the emoji."""
    for family, name in (("samples:digits", "digits"), ("samples:emoji", f"emoji-{label}")):
        if all(domain.startswith(f"{family}/") for domain in (source, target)):
            return paths.SAMPLES / "splits" / f"{name}.json"
    return None
