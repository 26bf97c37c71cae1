"""Captions as they come with prepared images: collected, made into tokens, written, and judged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sslflow.data import captions as kept
from sslflow.data.splits import TEST
from sslflow.data.tokens import BETWEEN, FILE, PAD, UNKNOWN, encoded
from sslflow.ingest.images.captions import Captions
from sslflow.ingest.records import escape
from sslflow.ingest.tokenizing import train_tokenizer
from sslflow.runtime.files import write_csv

PUT_ASIDE = "captions.csv"
PER_IMAGE = 16
"""Captions of an image that are kept, at most."""
LENGTH = 64
"""Tokens of a caption, at most, the special ones among them."""
OFTEN = 0.05
"""Share of the images that learn from which on a caption that they have in common is worth a line."""
UNREADABLE = "letters that no caption to learn from has"
TOO_LONG = "caption of more tokens than {}, which is cut"
TOO_MANY = f"image of more than {PER_IMAGE} captions, of which the first are kept"


class Captioned:
    """What is said of the images that are kept; `captions`: as it was read, None where nothing is to be read."""

    def __init__(self, captions: Captions | None) -> None:
        self._captions = captions
        self._of: dict[int, list[str]] = {}

    def add(self, captions: tuple[str, ...], row: int | None) -> None:
        """Those of an image that stands in `row`, or equals the one there; None: it is of no use."""
        if captions and row is not None:
            own = self._of.setdefault(row, [])
            own += [one for one in captions if one not in own]

    def write(self, folder: Path, vocabulary: int, say: Callable[[str], None]) -> tuple[dict, dict[str, int]]:
        """Write them into the folder of a prepared data set, whose manifest is there; what `dataset.json` says of them,
        and counts; neither where the source has none.

        The tokenizer is trained on captions of images to learn from alone. Raises `ValueError` where these have fewer
        than two different ones: there is nothing to tell apart.
        """
        if self._captions is None:
            return {}, {}
        faults = [(escape(where), escape(reason)) for where, reason in self._captions.faults]
        manifest = pq.read_table(folder / "manifest.parquet")
        table = manifest.select(["path", "shard", "split"])
        names, splits = table["path"].to_pylist(), table["split"].to_pylist()
        for row, own in self._of.items():
            if len(own) > PER_IMAGE:
                faults.append((names[row], TOO_MANY))
                del own[PER_IMAGE:]
        learnt = Counter(one for row, own in self._of.items() if splits[row] != TEST for one in own)
        if len(learnt) < 2:
            raise ValueError(
                f"data.captions: expected different captions to learn from, found {len(learnt)}"
                f"{f' ({next(iter(learnt))[:80]})' if learnt else ''}: nothing tells an image by it"
            )
        tokenizer = train_tokenizer(learnt, vocabulary)
        tokenizer.save(str(folder / FILE))
        longest = max(len(one.ids) for one in tokenizer.encode_batch(list(learnt))) + 2
        per_image = max(map(len, self._of.values()))
        facts = {"per_image": per_image, "length": min(longest, LENGTH), "vocabulary": tokenizer.get_vocab_size()}
        counts = self._write_tokens(folder, facts, tokenizer, table["shard"].to_numpy(), names, faults)
        numbers = pa.array([len(self._of.get(row, ())) for row in range(len(names))], pa.int32())
        pq.write_table(manifest.append_column("captions", numbers), folder / "manifest.parquet")
        pq.write_table(
            pa.table({"row": pa.array(list(self._of), pa.int64()), "captions": list(self._of.values())}).sort_by("row"),
            folder / kept.FILE,
        )
        write_csv(folder / PUT_ASIDE, ("path", "reason"), sorted(faults))
        tested = {one for row, own in self._of.items() if splits[row] == TEST for one in own}
        counts |= {"caption_faults": len(faults), "captions_in_both": len(tested & learnt.keys())}
        self._tell(learnt, len(tested), sum(split != TEST for split in splits), facts, counts, faults, say)
        return {"captions": facts}, counts

    def _write_tokens(
        self,
        folder: Path,
        facts: dict[str, int],
        tokenizer: Any,
        shards: np.ndarray,
        names: list[str],
        faults: list[tuple[str, str]],
    ) -> dict[str, int]:
        """A file of tokens for each shard of the manifest, and counts."""
        first, length = 0, facts["length"]
        for number, size in enumerate(np.bincount(shards).tolist()):
            tokens = np.full((size, facts["per_image"], length), PAD, np.int32)
            for row in (row for row in range(first, first + size) if row in self._of):
                own = encoded(tokenizer, self._of[row], length + 1)
                longer = own[:, length] != PAD
                own[longer, length - 1] = BETWEEN
                tokens[row - first, : len(own)] = own[:, :length]
                if (own == UNKNOWN).any():
                    faults.append((names[row], UNREADABLE))
                if longer.any():
                    faults.append((names[row], TOO_LONG.format(length - 2)))
            np.save(folder / f"captions-{number:05d}.npy", tokens)
            first += size
        return {"with_captions": len(self._of), "captions": sum(map(len, self._of.values()))}

    def _tell(
        self,
        learnt: Counter[str],
        tested: int,
        images: int,
        facts: dict[str, int],
        counts: dict[str, int],
        faults: list[tuple[str, str]],
        say: Callable[[str], None],
    ) -> None:
        say(
            f"{counts['captions']:,} captions of {counts['with_captions']:,} images, {len(learnt):,} different ones to "
            f"learn from; a vocabulary of {facts['vocabulary']:,} tokens, up to {facts['length']} a caption"
        )
        kinds = Counter(reason.partition(":")[0] for _, reason in faults)
        for kind, count in sorted(kinds.items()):
            where, reason = next(one for one in faults if one[1].partition(":")[0] == kind)
            say(f"warning: captions: {count:,} x {kind}, such as {where}{reason.removeprefix(kind)}")
        if faults:
            say(f"warning: captions: all {len(faults):,} of these stand in {PUT_ASIDE}, beside dataset.json")
        caption, often = learnt.most_common(1)[0]
        if often > max(10, OFTEN * images):
            say(
                f"warning: captions: {often:,} images to learn from have the same one, '{caption[:80]}': it tells "
                "nothing of each of them"
            )
        if 2 * counts["captions_in_both"] > tested:
            say(
                f"warning: captions: {counts['captions_in_both']:,} of the {tested:,} different ones to test on are "
                "also learnt from: what is found by them need not be understood"
            )
