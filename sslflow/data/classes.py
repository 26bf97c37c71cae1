"""Classes: how each is written, which differ by hardly anything, how many examples each has. Imports no torch."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from sslflow.data.splits import TEST, TRAIN

Counts = Mapping[str, Mapping[str, int]]
"""Class → split → number of labelled examples."""

SHOWN = 10
_TOLD = 30
_ESCAPED_BYTES = re.compile(r"(?:\\x[0-9a-f]{2})+")
_INVISIBLE = re.compile(r"[\u0300-\u036f\ufe00-\ufe0f'`\"\u2018-\u201f\u00b4]|\\[nrt]")
_GAP = r"[\s_\-\u2010-\u2015\u2212]+"
_MEANINGLESS_GAP = re.compile(rf"(?<=\D){_GAP}|{_GAP}(?=\D|$)")
_LEADING_ZEROS = re.compile(r"(?<![\d.,])0+(?=\d)")


def class_name(name: str) -> str:
    """The one spelling of a name that Unicode has several of: a Mac writes é as e and an accent (NFD), others as one
    letter (NFC, which this is)."""
    return unicodedata.normalize("NFC", name)


def alike(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Groups of names that are the same but for case, accents, width, spaces, hyphens, underscores, quotes, leading
    zeros and what can't be seen, in order. Names are as `escape` writes them."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name in sorted(set(names)):
        groups[_key(name)].append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def shown(names: Iterable[str], limit: int = SHOWN) -> str:
    """The first names, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - limit:,} more" if len(listed) > limit else ""
    return f"{', '.join(listed[:limit])}{more}"


def counted(classes: Sequence[str], labels: Iterable[int], splits: Iterable[str]) -> Counts:
    """How many examples each class has in each split; those without a label are not counted."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in classes}
    for label, split in zip(labels, splits, strict=True):
        if label >= 0:
            counts[classes[label]][split] += 1
    return counts


def summary(counts: Mapping[str, int]) -> str:
    """Classes and their numbers, such as `2 classes: cat 12, dog 9`; of very many the largest and the smallest."""
    if len(counts) == 1:
        return "1 class: " + "".join(f"{name} {count:,}" for name, count in counts.items())
    begin = f"{len(counts):,} classes: "
    if len(counts) <= _TOLD:
        return begin + ", ".join(f"{name} {count:,}" for name, count in counts.items())
    ordered = sorted(counts.items(), key=lambda pair: -pair[1])
    ends = (", ".join(f"{name} {count:,}" for name, count in part) for part in (ordered[:5], ordered[-5:]))
    return begin + ", …, ".join(ends)


def lacking(counts: Counts, *, tested: bool) -> list[str]:
    """What is to be said of classes without an example; where scores are wanted (`tested`), of those with none to train
    on or none to test on as well."""
    empty = [name for name, own in counts.items() if not any(own.values())]
    lines = [f"no example that can be used of the classes {shown(empty)}"] if empty else []
    held = {name: own for name, own in counts.items() if name not in empty}
    for split, use in ((TRAIN, "train"), (TEST, "test")) if tested else ():
        without = [name for name in held if not held[name].get(split)]
        if without:
            which = f"{len(without):,} of {len(held):,} classes" if len(without) < len(held) else "any class"
            lines.append(f"nothing to {use} on of {which}: {shown(without)}")
    return lines


def hardly_differing(names: Iterable[str]) -> list[str]:
    """What is to be said of names that differ by hardly anything."""
    groups = [" and ".join(f"'{name}'" for name in group) for group in alike(names)]
    if not groups:
        return []
    return [
        f"classes whose names differ by hardly anything are taken as different: {shown(groups)}; rename where they are "
        "one"
    ]


def _key(name: str) -> str:
    text = unicodedata.normalize("NFKD", _ESCAPED_BYTES.sub(_decoded, name))
    text = unicodedata.normalize("NFKD", text.casefold())
    text = _INVISIBLE.sub("", "".join(letter for letter in text if unicodedata.category(letter) != "Cf"))
    return _LEADING_ZEROS.sub("", _MEANINGLESS_GAP.sub("", re.sub(_GAP, "-", text.strip().rstrip(".")))) or name


def _decoded(escaped: re.Match[str]) -> str:
    """The letters that stand for escaped bytes: of a name that isn't UTF-8, those of an old archive in Latin-1."""
    content = bytes.fromhex(escaped[0].replace("\\x", ""))
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content.decode("latin-1")
