"""Text to a prepared data set: checked, deduplicated passages as tokens, with a row for each in a manifest."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import pyarrow as pa
from annotated_types import Ge

from sslflow.data.classes import counted, hardly_differing, lacking, shown, summary
from sslflow.data.formats import TextFormat, described
from sslflow.data.splits import NO_LABEL, POOL, TEST, TRAIN, Split, held_out
from sslflow.data.tokens import BETWEEN, FILE, FIRST, PAD, SPECIAL, UNKNOWN
from sslflow.ingest.shards import ShardWriter
from sslflow.ingest.text.reading import Passages, same_as
from sslflow.ingest.text.sources import SUFFIXES, BibleLabel, Found, open_source
from sslflow.ingest.tokenizing import Units, inside_words, train_tokenizer
from sslflow.runtime.files import write_csv, write_json
from sslflow.runtime.folders import replacing_folder
from sslflow.settings.params import Fraction, Natural

if TYPE_CHECKING:
    from tokenizers import Tokenizer

COLUMNS = (("sha256", pa.string()), ("text", pa.string()))
"""What the manifest says of each passage besides: its own text, and the hash of that, whatever its case and spaces."""
REPEATS = ("path", "split", "fate", "first_path", "first_split", "leak", "label", "first_label")
FEWEST_WORDS = 200
"""To train on: of fewer nothing can be learnt."""
MANY_UNKNOWN = 0.05
"""Share of the test passages' tokens that are in no vocabulary, from which on it is said."""
_EXAMPLES = 5

VOCABULARY, LENGTH = 8000, 64
"""Different tokens at most, and tokens of a passage, where settings say nothing."""

Length = Annotated[int, Ge(8)]
Vocabulary = Annotated[int, Ge(50)]


@dataclass
class Passage:
    """A passage that may be kept."""

    name: str
    text: str
    document: str
    split: Split
    label: str
    kept: bool = True


def prepare(
    folder: Path,
    tell: Callable[[str], None],
    *,
    kind: Literal["text"] = "text",
    source: str,
    path: str = "data/raw",
    passages: Passages = "paragraph",
    label: BibleLabel = "division",
    units: Units = "pieces",
    vocabulary: Vocabulary = VOCABULARY,
    length: Length = LENGTH,
    lowercase: bool = True,
    seed: Natural = 0,
    test_fraction: Fraction = 0.2,
    duplicates: Literal["keep", "drop"] = "drop",
    max_bad: Fraction = 0.5,
) -> dict[str, int]:
    """Fill `folder` with what `sslflow.data.dataset.Dataset` reads, with `tokenizer.json`, trained on the training
    passages alone, and with `quarantine.csv` and `duplicates.csv`; the counts.

    `kind` says whose settings these are, docs/text.md what they are. Whole documents are tested on, chosen by a hash
    of their names, of each class the same share. A passage of more tokens than `length` becomes several, cut between
    words. All text is in memory at once. Raises `ValueError` where there is nothing to learn from, or more than
    `max_bad` of what was read is unusable.
    """
    where = source if source.startswith("samples:") else f"{source} {path}"
    found = open_source(source, path, passages, label)
    _check(found, where, max_bad)
    classes = tuple(sorted({name for one in found.documents for name in one.labels if name}))
    rows = _split(found, seed, test_fraction)
    repeats = _drop_repeats(rows, drop=duplicates == "drop")
    training = [row.text for row in rows if row.kept and row.split == TRAIN]
    words = sum(len(text.split()) for text in training)
    if len(training) < 2 or words < FEWEST_WORDS:
        raise ValueError(
            f"{where}: {words} words in {len(training)} passages to train on; expected {FEWEST_WORDS} words in 2 "
            "passages at the least: name more text in data.path"
        )
    warnings: list[str] = []

    def warn(line: str) -> None:
        warnings.append(line)
        tell(f"warning: {line}")

    for line in hardly_differing(classes):
        warn(line)
    if over := sorted(found.over_files):
        warn(
            f"{len(over)} documents have lines in several files, such as {over[0]}: each is one document; where they "
            "are different ones, give them different names (the key document)"
        )
    tokenizer = train_tokenizer(training, vocabulary, lowercase, units)
    size = tokenizer.get_vocab_size()
    with replacing_folder(folder) as temporary:
        shape = (length,)
        fields = {"tokens": ("<i4", shape), "following": ("<i4", shape)}
        occurrences, test_tokens = np.zeros(size, np.int64), np.zeros(size, np.int64)
        pieces = 0
        with ShardWriter(temporary, fields, COLUMNS) as writer:
            for row, tokens, text, following, first in _pieces(rows, tokenizer, length):
                pieces += not first
                number = classes.index(row.label) if row.label else NO_LABEL
                facts = {"path": row.name, "split": row.split, "label": number, "group": row.document, "text": text}
                writer.add({"tokens": tokens, "following": following}, {**facts, "sha256": _hash(text)})
                np.add.at(occurrences if row.split == TRAIN else test_tokens, tokens[tokens != PAD], 1)
            counts = {split: writer.count(split) for split in (TRAIN, TEST, POOL)}
        tokenizer.save(str(temporary / FILE))
        write_csv(temporary / "quarantine.csv", ("path", "reason"), sorted(found.rejected))
        write_csv(temporary / "duplicates.csv", REPEATS, repeats)
        leaked = sum(repeat[5] == "yes" for repeat in repeats)
        if leaked:
            done = "dropped there" if duplicates == "drop" else "kept, so that scores flatter"
            warn(f"leakage: {leaked} passages to learn from equal a test passage; {done}; see duplicates.csv")
        conflicts = sum(bool(repeat[6] and repeat[7] and repeat[6] != repeat[7]) for repeat in repeats)
        if conflicts:
            warn(f"{conflicts} passages equal one with another label: none of them keeps one; see duplicates.csv")
        unknown = _unknown(test_tokens)
        if unknown > MANY_UNKNOWN:
            warn(
                f"{100 * unknown:.0f} % of the test passages' tokens are in no vocabulary: data.units: pieces, or a "
                "larger data.vocabulary, knows more"
            )
        _tell_of_documents(rows, counts, test_fraction, warn)
        _tell_of_classes(classes, rows, tell, warn)
        tell(f"{int(occurrences[len(SPECIAL) :].sum()):,} tokens to train on, {size:,} different ones")
        form = TextFormat(length, size, tuple(occurrences.tolist()), inside_words(tokenizer))
        told = {**described(form, classes), "counts": counts, "warnings": warnings}
        write_json(temporary / "dataset.json", told)
    return {
        "passages": sum(counts.values()),
        **counts,
        "classes": len(classes),
        "documents": len({row.document for row in rows}),
        "quarantined": len(found.rejected),
        "duplicates": len(repeats),
        "leaked": leaked,
        "label_conflicts": conflicts,
        "other_files": found.other_files,
        "cut": pieces,
        "tokens": int(occurrences[len(SPECIAL) :].sum()),
        "vocabulary": size,
    }


def _check(found: Found, where: str, max_bad: float) -> None:
    good, bad = len(found.documents), len(found.rejected)
    if not good and not bad:
        others = f"; it holds {found.other_files} other files" if found.other_files else ""
        raise ValueError(f"{where}: there is no text here ({', '.join(SUFFIXES)}){others}")
    if good and bad / (good + bad) <= max_bad:
        return
    reasons = Counter(reason.partition(":")[0] for _, reason in found.rejected).most_common(_EXAMPLES)
    examples = "".join(f"\n  {name}: {reason}" for name, reason in found.rejected[:_EXAMPLES])
    limit = f"more than data.max_bad = {max_bad:g} allows" if good else "there is nothing to prepare"
    counted_reasons = ", ".join(f"{count} {reason}" for reason, count in reasons)
    raise ValueError(
        f"{where}: {bad} of {good + bad} files or lines can't be used, {limit} ({counted_reasons}):{examples}"
    )


def _split(found: Found, seed: int, test_fraction: float) -> list[Passage]:
    """All passages, in order, each with the split of its document."""
    documents = found.documents
    strata = {name: number for number, name in enumerate(sorted({one.like for one in documents}))}
    names, labels = [one.name for one in documents], [strata[one.like] for one in documents]
    tested = set(held_out(names, labels, test_fraction, seed).tolist())
    return [
        Passage(name, text, one.name, TEST if number in tested else TRAIN, label)
        for number, one in enumerate(documents)
        for name, text, label in zip(one.names, one.passages, one.labels, strict=True)
    ]


def _drop_repeats(rows: Sequence[Passage], *, drop: bool) -> list[tuple[str, ...]]:
    """Mark passages that equal an earlier one, or one to test on, which comes first; the rows of `duplicates.csv`.
    Where their labels differ, none of them keeps one: nobody knows which is right."""
    equal: defaultdict[str, list[Passage]] = defaultdict(list)
    for row in sorted(rows, key=lambda one: one.split != TEST):
        equal[same_as(row.text)].append(row)
    repeats, fate = [], "dropped" if drop else "kept"
    for known, *others in equal.values():
        for row in others:
            row.kept = not drop
            leak = "yes" if row.split != known.split else "no"
            repeats.append((row.name, row.split, fate, known.name, known.split, leak, row.label, known.label))
        if len({row.label for row in (known, *others)} - {""}) > 1:
            for row in (known, *others):
                row.label = ""
    return repeats


def _pieces(
    rows: Sequence[Passage], tokenizer: Tokenizer, length: int
) -> Iterator[tuple[Passage, np.ndarray, str, np.ndarray, bool]]:
    """Passages that are kept, or parts of those too long: its row, tokens `(length,)`, text, the tokens of what
    follows, and whether it is a passage's first part. Nothing follows where what does was dropped."""
    nothing = np.full(length, PAD, np.int32)
    waiting: tuple[Passage, np.ndarray, str, bool] | None = None
    for row, encoding in zip(
        rows, tokenizer.encode_batch([one.text for one in rows], add_special_tokens=False), strict=True
    ):
        parts = _cut(encoding.ids, encoding.word_ids, length - 2) if row.kept else [slice(0, 0)]
        for number, part in enumerate(parts):
            ids = encoding.ids[part]
            tokens = nothing.copy()
            tokens[: len(ids) + 2] = [FIRST, *ids, BETWEEN]
            if waiting:
                follows = bool(ids) and waiting[0].document == row.document
                yield (*waiting[:3], tokens if follows else nothing, waiting[3])
            waiting = None
            if ids:
                begin, end = encoding.offsets[part][0][0], encoding.offsets[part][-1][1]
                waiting = row, tokens, row.text[begin:end].strip(), number == 0
    if waiting:
        yield (*waiting[:3], nothing, waiting[3])


def _cut(ids: Sequence[int], words: Sequence[int | None], room: int) -> list[slice]:
    """Parts of at most `room` tokens, cut between words where a word begins in their second half."""
    parts, start = [], 0
    while len(ids) - start > room:
        ends = range(start + room, start + room // 2, -1)
        end = next((one for one in ends if words[one] != words[one - 1]), start + room)
        parts.append(slice(start, end))
        start = end
    return [*parts, slice(start, len(ids))]


def _hash(text: str) -> str:
    return hashlib.sha256(same_as(text).encode()).hexdigest()


def _unknown(tokens: np.ndarray) -> float:
    ordinary = int(tokens[len(SPECIAL) :].sum())
    return tokens[UNKNOWN] / max(1, ordinary + tokens[UNKNOWN])


def _tell_of_documents(
    rows: Sequence[Passage], counts: dict[str, int], test_fraction: float, warn: Callable[[str], None]
) -> None:
    if not counts[TEST]:
        documents = len({row.document for row in rows})
        none = f"whole documents are held out, and of the {documents} here no two are of one class; name more of them"
        warn(f"nothing to test on: {none if test_fraction else 'data.test_fraction is 0'}")
    if all(row.document != later.document for row, later in pairwise(rows)):
        warn(
            "no passage follows another: every document is one passage; next_sentence and bert need documents of "
            "several (in .jsonl the key document)"
        )


def _tell_of_classes(
    classes: tuple[str, ...], rows: Sequence[Passage], tell: Callable[[str], None], warn: Callable[[str], None]
) -> None:
    if not classes:
        return
    kept = [row for row in rows if row.kept and row.label]
    counts = counted(classes, [classes.index(row.label) for row in kept], [row.split for row in kept])
    tell(f"labelled passages of {summary({name: sum(own.values()) for name, own in counts.items()})}")
    for line in lacking(counts, tested=True):
        warn(line)
    if len(trained := [name for name, own in counts.items() if own.get(TRAIN)]) < 2:
        warn(
            f"labelled passages to train on are of {shown(trained) or 'no class'} alone: there is nothing to tell apart"
        )
