"""Depth maps as they come with prepared images: counted, judged, and described."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sslflow.data.splits import POOL, TEST, TRAIN, Split
from sslflow.ingest.images.examine import Examined
from sslflow.ingest.records import DepthMaps, escape
from sslflow.runtime.files import write_csv

FILE = "depth.csv"
_EXAMPLES = 5


class Measured:
    """What is known of the depth maps of the images that are kept."""

    def __init__(self, maps: DepthMaps | None) -> None:
        """None: of a source without."""
        self.maps = maps
        self._flaws: list[tuple[str, str]] = list(maps.flaws) if maps else []
        self._unusable: set[str] = set()
        self._of: dict[Split, Counter[bool]] = defaultdict(Counter)
        self._without: list[str] = []
        self._sums: dict[Split, np.ndarray] = defaultdict(lambda: np.zeros(4))

    def checked(self, item: Examined) -> Examined:
        """The image; where its map can't be used, as one without."""
        if self.maps is None or item.depth is None or item.depth.metres is not None:
            return item
        if item.name not in self._unusable:  # one to train on may come again in the pool
            self._flaws.append((item.name, item.depth.flaw))
            self._unusable.add(item.name)
        split = self.maps.spare if self.maps.spare and item.split == TEST else item.split
        return replace(item, split=split, depth=None)

    def add(self, item: Examined, side: int) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        """An image that is kept; its field and its column of the manifest, none where the source has no maps."""
        if self.maps is None:
            return {}, {}
        metres = item.depth.metres if item.depth else None
        self._of[item.split][metres is not None] += 1
        if metres is None:
            self._without.append(item.name)
            return {"depth": np.zeros((1, side, side), np.float32)}, {"depth": 0.0}
        known = metres[metres > 0].astype(np.float64)
        logs = np.log(known)
        self._sums[item.split] += [len(logs), logs.sum(), np.square(logs).sum(), metres.size]
        return {"depth": metres}, {"depth": len(known) / metres.size}

    def write(self, folder: Path, max_bad: float, say: Callable[[str], None]) -> tuple[dict, dict[str, int]]:
        """Write the list of maps that can't be used; what `dataset.json` says of depth, and counts, neither where the
        source has none. `say` gets a line for each thing that is to be known. Raises `ValueError` where none can be
        used, or more than the share `max_bad` can't."""
        if self.maps is None:
            return {}, {}
        rows = [(escape(name), escape(reason)) for name, reason in sorted(set(self._flaws))]
        write_csv(folder / FILE, ("path", "reason"), rows)
        # Where images were divided for their maps' sake, those in the pool are there a second time.
        good = sum(own[True] for split, own in self._of.items() if split != POOL or not self.maps.spare)
        bad = len(self._unusable)
        if not good or bad > max_bad * (good + bad):
            limit = f"more than data.max_bad = {max_bad:g} allows" if good else "there is nothing to learn from"
            examples = "".join(f"\n  {name}: {reason}" for name, reason in rows[:_EXAMPLES])
            raise ValueError(f"data.depth: {bad} of {good + bad} depth maps can't be used, {limit}:{examples}")
        for line in self._told(good):
            say(line)
        pretrained = POOL if self._sums[POOL][0] else TRAIN
        count, total, squares, pixels = self._sums[pretrained if self._sums[pretrained][0] else TEST].tolist()
        mean = total / count
        facts: dict[str, Any] = {
            "unit": "m",
            "mean_log": mean,
            "std_log": max(squares / count - mean**2, 1e-6) ** 0.5,
            "known": count / pixels,
        }
        return {"depth": facts}, {
            "with_depth": good,
            "without_depth": len(set(self._without)),
            "depth_unusable": bad,
            "depth_left_out": len(self.maps.flaws),
            **{f"depth_{split}": self._of[split][True] for split in (TRAIN, TEST, POOL)},
        }

    def _told(self, good: int) -> Iterator[str]:
        splits = ", ".join(f"{own[True]:,} {split}" for split in (POOL, TRAIN, TEST) if (own := self._of[split])[True])
        yield f"depth maps of {good:,} images ({splits})"
        if self._without:
            yield (
                f"warning: depth: {len(set(self._without)):,} images have none that can be used, such as "
                f"{escape(self._without[0])}; methods that learn from depth don't see them, others do"
            )
        kinds: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for name, reason in self._flaws:
            kinds[reason.partition(":")[0]].append((name, reason.partition(":")[2].strip()))
        for kind, own in sorted(kinds.items()):
            name, detail = own[0]
            example = f"{escape(name)}{f' ({escape(detail)})' if detail else ''}"
            yield f"warning: depth: {len(own):,} x {escape(kind)}, such as {example}"
        if kinds:
            yield f"warning: depth: all of these stand in {FILE}, beside dataset.json"
