"""Two prepared data sets side by side: a source domain, which has labels, and a target domain to adapt to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sslflow.ingest.images.prepare import prepare
from sslflow.ingest.images.sources import EmojiLabel, open_source

SHARED = ("image_size", "channels", "fit", "background", "sixteen_bit", "max_pixels", "max_bad", "workers")
"""Settings of the section `data` that hold for both domains: one encoder sees the images of both."""


def prepare_domains(
    folder: Path,
    tell: Callable[[str], None],
    images: Mapping[str, Any],
    *,
    source: str = "samples:digits/clean",
    source_path: str = "data/raw/source",
    target: str = "samples:digits/photo",
    target_path: str = "data/raw/target",
    label: EmojiLabel = "category",
    encoder: str = "",
) -> dict[str, int]:
    """Fill `folder/source` and `folder/target` as `prepare` does; its counts, named `source_…` and `target_…`.

    `images` holds settings of the section `data`, of which those in `SHARED` apply. No image is held out: what is to
    be predicted is the whole target, for which nothing may be left out, so images that are equal are kept there.
    `encoder` names a file of weights to start from; here it is only looked for, before any work is done. Raises
    `ValueError` where it isn't there, where the source has no two classes, and as `prepare` does.
    """
    if encoder and not Path(encoder).is_file():
        raise ValueError(
            f"domains.encoder: there is no file {encoder}; name a file of weights, or '' to start without one"
        )
    classes = open_source(source, source_path, seed=0, test_fraction=0.0, label=label).classes
    if len(classes) < 2:
        found = f"one class, {classes[0]!r}" if classes else "no labels"
        raise ValueError(
            f"domains.source: expected labelled images of two classes or more, found {found} in {source} "
            f"({source_path}); a source of labels is samples:<name>, imagefolder, idx or torchvision:<name>"
        )
    counts = {}
    shared = {name: images[name] for name in SHARED if name in images}
    for domain, kind, path in (("source", source, source_path), ("target", target, target_path)):
        duplicates = "drop" if domain == "source" else "keep"
        own = prepare(
            folder / domain,
            tell,
            source=kind,
            path=path,
            test_fraction=0.0,
            label=label,
            duplicates=duplicates,
            **shared,
        )
        counts |= {f"{domain}_{name}": count for name, count in own.items()}
    return counts
