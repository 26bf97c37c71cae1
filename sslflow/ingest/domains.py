"""Two prepared data sets side by side: a source domain, which has labels, and a target domain to adapt to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Literal

import pyarrow.parquet as pq

from sslflow import paths
from sslflow.data.classes import alike, shown
from sslflow.data.splits import NO_LABEL
from sslflow.ingest.images.decode import MAX_PIXELS, Background, Fit
from sslflow.ingest.images.prepare import SOURCE_WORDS, WARNING, prepare
from sslflow.ingest.images.raster import SixteenBit
from sslflow.ingest.images.sources import EmojiLabel, open_source
from sslflow.runtime.files import read_json, write_json
from sslflow.settings.params import Count, Fraction, Natural

FACTS = "domains.json"
"""Beside both domains: which images they are, and the split file that ships for them."""


UNKNOWN = "unknown"
"""What the stage `adapt` calls images of none of the source's classes."""


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
    opened = open_source(source, source_path, seed=0, test_fraction=0.0, label=label, words=SOURCE_WORDS)
    if len(opened.classes) < 2:
        found = f"one class, {opened.classes[0]!r}" if opened.classes else "no labels"
        advice = opened.doubt or "a source of labels is samples:<name>, imagefolder, idx or torchvision:<name>"
        raise ValueError(
            f"domains: expected labelled images of two classes or more as source, found {found} in {source} "
            f"({source_path}); {advice}"
        )
    if UNKNOWN in opened.classes:
        raise ValueError(
            f"domains: the source ({source_path}) has a class '{UNKNOWN}', as images of no class are called; give it "
            "another name, or leave it out"
        )
    counts = {}
    domains: tuple[tuple[Literal["source", "target"], str, str], ...] = (
        ("source", source, source_path),
        ("target", target, target_path),
    )
    for domain, kind, path in domains:
        own = prepare(
            folder / domain,
            partial(_tell, tell, domain),
            domain,
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
    for line in _compared(*(_labelled(folder / domain) for domain, _, _ in domains)):
        tell(line)
    split = default_split(source, target, label)
    write_json(folder / FACTS, {"source": source, "target": target, "split": split.as_posix() if split else ""})
    return counts


def _tell(tell: Callable[[str], None], domain: str, line: str) -> None:
    tell(f"{WARNING}{domain}: {line.removeprefix(WARNING)}" if line.startswith(WARNING) else f"{domain}: {line}")


def _labelled(folder: Path) -> dict[str, list[str]]:
    """Class → hashes of its images' files."""
    table = pq.read_table(folder / "manifest.parquet", columns=["label", "sha256"])
    classes, found = read_json(folder / "dataset.json")["classes"], defaultdict(list)
    for label, sha256 in zip(*(column.to_pylist() for column in table.columns), strict=True):
        if label != NO_LABEL:
            found[classes[label]].append(sha256)
    return dict(found)


def _compared(source: Mapping[str, list[str]], target: Mapping[str, list[str]]) -> Iterator[str]:
    """Lines that say which classes the domains share, where the target has labels: by name, letter by letter."""
    if not target:
        return
    both = sorted(source.keys() & target.keys())
    alone = [sorted(one.keys() - set(both)) for one in (source, target)]
    found = (
        f"{shown(names)} ({len(names)}) {where}"
        for names, where in zip([both, *alone], ("in both", "in the source alone", "in the target alone"), strict=True)
        if names
    )
    yield f"classes: {'; '.join(found)}"
    if not both:
        yield f"{WARNING}no class of the target has the name of one of the source's: all its images count as unknown"
    groups = alike([*source, *target])
    across = [group for group in groups if group not in alike(source) and group not in alike(target)]
    if across:
        names = shown(" and ".join(f"'{name}'" for name in group) for group in across)
        yield (
            f"{WARNING}classes of source and target whose names differ by hardly anything are taken as different: "
            f"{names}; rename where they are one"
        )
    known = {sha256: name for name, hashes in source.items() for sha256 in hashes}
    other = [(known[one], name) for name, hashes in target.items() for one in hashes if known.get(one, name) != name]
    if other:
        names = shown(f"{mine} and {theirs}" for mine, theirs in dict.fromkeys(other))
        yield f"{WARNING}{len(other)} images are in both domains, with different labels: {names}"


def default_split(source: str, target: str, label: str) -> Path | None:
    """The split file that ships for two samples of the same things, if they are such; `label` is for the emoji."""
    for family, name in (("samples:digits", "digits"), ("samples:emoji", f"emoji-{label}")):
        if all(domain.startswith(f"{family}/") for domain in (source, target)):
            return paths.SAMPLES / "splits" / f"{name}.json"
    return None
